
/* ---- where an atlas is served: from every page to the one of a picture of one's own ---- */

{
  const words = one("header > a");
  const own = words.cloneNode();
  own.href = new URL("../own", document.currentScript.src).href;
  own.textContent = "A picture of your own";
  if (own.href !== window.location.href) words.before(own);
}
