from __future__ import annotations

import re
from xml.etree.ElementTree import fromstring

from bunryu.reports.charts import parallel

SVG = "{http://www.w3.org/2000/svg}"


def test_no_line_of_parallel_coordinates_strikes_a_label_through() -> None:
    columns = {"lr": [1e-5, 5e-5, 1e-4], "batch_size": [16, 32, 64], "model": ["kcbert-base", "tiny", "tiny"]}
    drawing = fromstring(parallel("t", columns, [0.1, 0.2, 0.3], "val/loss", lower_is_better=True))
    texts = [each for each in drawing.iter(f"{SVG}text") if each.get("class") is None]
    labels = {float(each.attrib["x"]): len(str(each.text)) for each in reversed(texts)}
    lines = [each.attrib["d"] for each in drawing.iter(f"{SVG}path") if "line" in each.attrib["class"]]
    assert len(lines) == 3
    for line in lines:
        segments = re.findall(r"M(\S+) \S+L(\S+) \S+?(?=M|$)", line)
        assert len(segments) == 3
        for left, right in segments:
            covered = [x for x, length in labels.items() if float(left) < x + 6 * length and x < float(right)]
            assert covered == []
