"""torchvision's weights by name, with nothing fetched: what would come over the network comes from here."""

import hashlib
import io
import urllib.error

import pytest
import torch
from torchvision import models

import deconvnet
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.importing import downloads

NAME = "torchvision:squeezenet1_0"


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """torchvision's squeezenet1_0 has these weights, under a file name with their SHA-256, at an address of ours."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = models.SqueezeNet1_0_Weights.IMAGENET1K_V1
    state = deconvnet.load_model(NAME).state_dict()
    state = {name: value + 1 for name, value in state.items()}
    out = io.BytesIO()
    torch.save(state, out)
    content = out.getvalue()
    name = f"squeezenet1_0-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    place = {"content": content, "state": state, "file": tmp_path / "hub" / "checkpoints" / name, "asked": []}

    def answer(request, *_args, **_more):
        place["asked"].append(request.full_url if hasattr(request, "full_url") else request)
        if place["content"] is None:
            raise urllib.error.URLError("no network here")
        found = io.BytesIO(place["content"])
        found.info = lambda: type("Headers", (), {"get_all": lambda *_: None, "getheaders": lambda *_: None})()
        return found

    monkeypatch.setattr("torch.hub.urlopen", answer)
    monkeypatch.setattr(type(entry), "url", property(lambda self: f"https://example.org/{name}"), raising=False)
    if entry.url != f"https://example.org/{name}":
        pytest.skip("this torchvision keeps its addresses elsewhere")
    return place


def test_they_come_with_classes_and_preprocessing(offered):
    net = deconvnet.load_model(NAME, "DEFAULT")
    assert torch.equal(net.classifier[1].bias, offered["state"]["classifier.1.bias"])
    assert len(net.classes) == 1000 and net.classes[0] == "tench"
    assert (net.preprocess.size, net.preprocess.resize, net.preprocess.mean) == (224, 256, (0.485, 0.456, 0.406))
    deconvnet.load_model(NAME, "IMAGENET1K_V1")
    assert len(offered["asked"]) == 1 and offered["file"].is_file(), "the second time they are there"


def test_offline_it_says_what_to_do(offered):
    offered["content"] = None
    with pytest.raises(DeconvnetError, match=r"https://example.org/.*no network here.*--weights"):
        deconvnet.load_model(NAME, "DEFAULT")
    assert not offered["file"].exists()


def test_what_comes_damaged_is_refused_and_not_kept(offered):
    offered["content"] = offered["content"][:-5] + b"abcde"
    with pytest.raises(DeconvnetError, match="invalid hash"):
        deconvnet.load_model(NAME, "DEFAULT")
    assert not offered["file"].exists()


@pytest.mark.parametrize("damage", [lambda content: content[:-5] + b"abcde", lambda content: content[:1000]])
def test_what_was_damaged_since_is_refused(offered, damage):
    deconvnet.load_model(NAME, "DEFAULT")
    offered["file"].write_bytes(damage(offered["content"]))
    with pytest.raises(DeconvnetError, match=r"is damaged.*Delete it"):
        deconvnet.load_model(NAME, "DEFAULT")


def test_what_would_run_code_is_not_run(offered, tmp_path, monkeypatch):
    import evil
    content = evil.saved({**offered["state"], "x": evil.Payload(tmp_path / "canary")})
    name = f"squeezenet1_0-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    offered["content"] = content
    monkeypatch.setattr(models.SqueezeNet1_0_Weights, "url", property(lambda self: f"https://example.org/{name}"))
    with pytest.raises(DeconvnetError, match="fetched or read"):
        deconvnet.load_model(NAME, "DEFAULT")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("url", ["http://example.org/a-12345678.pth", "https://example.org/a.pth", "file:///a-12345678.pth"])
def test_without_https_or_a_checksum_nothing_is_fetched(offered, monkeypatch, url):
    monkeypatch.setattr(models.SqueezeNet1_0_Weights, "url", property(lambda self: url))
    with pytest.raises(UsageError, match="https or a checksum"):
        deconvnet.load_model(NAME, "DEFAULT")
    assert not offered["asked"]


def test_a_name_that_is_not_offered_says_which_are():
    with pytest.raises(UsageError, match=r"torchvision offers IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"):
        deconvnet.load_model("torchvision:resnet50", "IMAGENET1K_V3")
    with pytest.raises(UsageError, match="no weights file DEFAULT"):
        deconvnet.load_model("zfnet", "DEFAULT")


def test_every_weight_that_torchvision_offers_for_classifiers_can_be_asked_for():
    """Their addresses are https, with a checksum in the name, and their preprocessing is understood."""
    for model in models.list_models(module=models):
        for name in downloads.weights_by_name(model):
            entry = models.get_model_weights(model)[name]
            assert entry.url.startswith("https://") and downloads._expected(downloads.Path(entry.url)), entry
            assert downloads._preprocess(model, entry).size == entry.transforms().crop_size[0]


def test_what_these_two_do_in_the_network_is_done_to_their_images():
    """GoogLeNet and Inception from torchvision put their images on −1..1 themselves; here that is the preprocessing."""
    theirs = models.googlenet(weights=None, init_weights=False, transform_input=True).eval()
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    own = downloads._preprocess("googlenet", models.GoogLeNet_Weights.IMAGENET1K_V1)
    assert torch.allclose(theirs._transform_input((pixels - mean) / std), (pixels - 0.5) / 0.5, atol=1e-6)
    assert own.mean == own.std == (0.5, 0.5, 0.5)
