"""The browsable page of all units: a folder of plain files that opens anywhere, without a server or a network.

``build.py`` makes it from a scan: pictures first, layer by layer (``pictures.py``), with what is known of each unit
(``facts.py``), then the pages (``pages.py``, ``templates/``, ``static/``), with a teacher's words (``labels.py``).
``serve.py`` opens it to this computer alone, and looks at pictures of one's own (``own.py``).
"""
