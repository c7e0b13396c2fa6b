"""The page: self-contained, well-formed, with the numbers that were found."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from scalefast import SCALE, FeatureStore
from scalefast.cli import main
from scalefast.errors import InputError
from scalefast.evaluation import evaluate, write_results
from scalefast.report import figures, report, sections
from scalefast.report.neighbours import find_neighbours, pick_queries

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects text by tag and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append((self.open[-1], data.strip()))

    def words(self, tag: str) -> list[str]:
        return [text for where, text in self.text if where == tag]


@pytest.fixture(scope="module")
def page(case: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    evaluate(case.run, train=case.train, test=case.test, out=folder / "results.json", device="cpu")
    out = report(
        case.run,
        train=case.train,
        test=case.test,
        out=folder / "deep" / "report.html",
        results=folder / "results.json",
        videos=case.videos,
        device="cpu",
    )
    return out.read_text()


def test_tags_nest_and_names_are_escaped(page: str) -> None:
    reader = Reader(page)
    assert "<b>swim</b>" in reader.words("li")
    assert "jump & run" in reader.words("div")
    assert not [tag for tag, _ in reader.tags if tag in ("b", "script", "link", "iframe", "object")]


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                assert value is not None and value.startswith("data:"), (tag, name, value)
            assert not name.startswith("on"), (tag, name)
    assert "http:" not in page and "https:" not in page and "//" not in re.sub(r"base64,\S+", "", page)
    assert "@import" not in page and "url(" not in page
    policies = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_numbers_and_verdict_are_those_of_the_evaluation(page: str, case: Any) -> None:
    results = evaluate(case.run, train=case.train, test=case.test, device="cpu")
    reader = Reader(page)
    cells = reader.words("td")
    for row in results.accuracies.values():
        for value in row.values():
            assert f"{100 * value:.1f}" in cells
    sentences = " ".join(reader.words("li"))
    for sentence in results.verdict():
        assert sentence in sentences
    for difference in results.differences.values():
        assert f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}" in reader.words("span")
    assert reader.words("p")[1] == results.summary()
    headings = reader.words("th")
    start = headings.index("without SCALE")
    expected = [
        "accuracy, %",
        "without SCALE",
        "SCALE",
        "SCALE less best baseline",
        "mean pooling",
        "mean + std",
        "mean + course",
        "max pooling",
        "untrained CLS",
        "untrained recommended",
        "refined",
        "CLS",
        "ensemble",
        "recommended",
    ]
    assert headings[start - 1 : start - 1 + len(expected)] == expected


def test_measures_that_are_no_accuracies_stand_under_their_own_names() -> None:
    row = {"mean": 0.5, "ensemble": 0.625}
    page = Reader(sections.results({"clustering_nmi": row, "knn": row, "linear": row}, {}))
    assert [word for word in page.words("th") if "%" in word] == ["NMI, %", "accuracy, %"]
    assert [word for word in page.words("td") if word[:1] not in "+5-6"] == [
        "clustering NMI",
        "k-NN",
        "linear",
    ]
    (drawn,) = figures.intervals({"clustering_nmi": row, "knn": row}, {}).values()
    assert "NMI / accuracy, %" in drawn.svg()


def test_counts_curves_maps_and_provenance_are_there(page: str, case: Any) -> None:
    reader = Reader(page)
    cells = reader.words("td")
    assert cells[cells.index("training") : cells.index("training") + 7] == [
        "training", *["not recorded"] * 3, "30", "480", "3",
    ]  # fmt: skip
    dots = [a for tag, a in reader.tags if tag == "circle" and a.get("class") == "dot"]
    assert len(dots) == 2 * len(case.test) + 2 * len(("knn", "linear"))
    spots = [a for tag, a in reader.tags if tag == "span" and a.get("class") == "spot"]
    assert len(spots) == 2 * len(case.test)
    hover = reader.words("title")
    assert f"jump & run: {case.test.ids[1]}" in hover
    lines = [a for tag, a in reader.tags if tag == "polyline" and a["class"] == "line"]
    assert [len(line["points"].split()) for line in lines] == [4] * 5
    facts = dict(zip(reader.words("dt"), reader.words("dd"), strict=True))
    assert facts["run"] == str(case.run)
    assert "epochs 4" in facts["pretraining"]
    assert re.fullmatch(r"[0-9a-f]{64}", facts["weights (sha256)"])
    assert facts["test clips"] == "16 a video"


def test_neighbours_play_or_say_why_not(page: str, case: Any) -> None:
    reader = Reader(page)
    images = [a for tag, a in reader.tags if tag == "img"]
    films = [a for a in images if a["alt"]]
    tiles = [a["class"] for tag, a in reader.tags if tag == "div" and str(a.get("class")).startswith("tile")]
    failures = len([text for text in reader.words("div") if text.startswith("taken for ")])
    assert 1 <= failures <= 6
    assert len(tiles) == (failures + 3) * (1 + 2 * 5)
    lost = [text for text in reader.words("div") if text in ("test/00.mp4", "test/01.mp4")]
    assert len(lost) >= 2 and len(films) == len(tiles) - len(lost)
    assert len(images) - len(films) == 2 * (len(case.test) - 2), "each map has a still of every other video"
    remarks = " ".join(reader.words("li"))
    assert re.search(
        r"No thumbnails of 1 of these \d+ videos: the files were not found .*'test/00\.mp4'", remarks
    )
    assert re.search(r"1 of these videos could not be decoded \(for example .*01\.mp4: unreadable", remarks)
    assert {"tile same", "tile other", "tile"} >= set(tiles)


def test_neighbours_are_nearest_and_their_share_is_right() -> None:
    train = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).double()
    test = torch.tensor([[2.0, 0.2], [-2, -0.2]]).double()
    found = find_neighbours(train, torch.tensor([0, 0, 1, 1]), test, torch.tensor([0, 0]), k=2)
    assert found.rows.tolist() == [[0, 1], [2, 3]]
    assert found.share_of_class(nearest=2) == found.share_of_class(nearest=1) == 0.5
    assert found.predicted.tolist() == [0, 1] and found.wrong == [1]
    assert found.support.tolist() == pytest.approx([1, 0])
    assert found.similarity[0, 0].item() == pytest.approx(2 / (4 + 0.04) ** 0.5)


def test_queries_are_the_first_of_evenly_spread_classes() -> None:
    labels = torch.tensor([3, 1, 1, 2, 0, 5, 4, 7, 6, 3])
    assert pick_queries(labels, count=99) == [4, 1, 3, 0, 6, 5, 8, 7]
    assert pick_queries(labels, count=4) == [4, 3, 6, 8]


def test_same_page_every_time(case: Any, tmp_path: Path) -> None:
    pages = [
        report(case.run, train=case.train, test=case.test, out=tmp_path / name, device="cpu").read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]


def test_without_videos_the_page_says_so(case: Any, tmp_path: Path) -> None:
    out = report(case.run, train=case.train, test=case.test, out=tmp_path / "r.html", device="cpu")
    reader = Reader(out.read_text())
    told = [text for text in reader.words("li") if "thumbnails" in text]
    message = "No thumbnails: the videos were not given to the report (--videos, --train-videos)."
    assert told == [message, message], "under the map and under the neighbours"
    assert not [tag for tag, _ in reader.tags if tag == "img"]


def test_averaged_results_have_no_interval(case: Any, tmp_path: Path) -> None:
    """results.json alone, as a mean over several runs leaves it."""
    write_results(tmp_path / "results.json", {"knn": {"mean": 0.4, "cls": 0.3, "ensemble": 0.55}})
    out = report(
        case.run,
        train=case.train,
        test=case.test,
        out=tmp_path / "r.html",
        results=tmp_path / "results.json",
        title="Three seeds",
        device="cpu",
    )
    reader = Reader(out.read_text())
    assert "k-NN: SCALE (ensemble) is 15.0 points above mean pooling, 55.0% against 40.0%." in reader.words(
        "li"
    )
    assert reader.words("h1") == ["Three seeds"]
    assert "+15.0" in reader.words("td")
    assert "95% interval" not in out.read_text()
    assert any(
        text.startswith("Failures, confusions and neighbours are those of this one run")
        for text in reader.words("li")
    )


def test_model_without_a_run_has_no_curves(case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SCALE(feature_dim=16, hidden_dim=32, num_layers=1)
    out = report(model, train=case.train, test=case.test, out=tmp_path / "r.html", device="cpu")
    assert "No log: the model comes from no run folder" in out.read_text()


def test_results_of_another_model_are_refused(case: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    SCALE(feature_dim=16, hidden_dim=32, num_layers=1).save_pretrained(tmp_path / "other")
    results = tmp_path / "results.json"
    evaluate(tmp_path / "other", train=case.train, test=case.test, out=results, device="cpu")
    out = tmp_path / "r.html"
    with pytest.raises(InputError, match=r"results\.json: these results are of another model than .*run"):
        report(case.run, train=case.train, test=case.test, out=out, results=results, device="cpu")
    assert not out.exists()


def test_unlabelled_test_store_is_refused(case: Any, tmp_path: Path) -> None:
    bare = FeatureStore.create(tmp_path / "bare", features=case.test.features.tensor())
    with pytest.raises(InputError, match="this store has no labels"):
        report(case.run, train=case.train, test=bare, out=tmp_path / "r.html", device="cpu")


def test_verb_writes_the_page(case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    words = ["report", str(case.run), "--train", str(case.train.path), "--test", str(case.test.path)]
    assert main([*words, "--out", str(out), "--videos", str(case.videos), "--title", "Mine"]) == 0
    assert str(out) in capsys.readouterr().out
    assert Reader(out.read_text()).words("h1") == ["Mine"]
    assert main([*words, "--out", str(out), "--json", "--figures", str(tmp_path / "figures")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["title"] == "SCALE against mean pooling: run"
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.{ending}"
        for name in ("intervals", "confusion", "map-mean", "map-recommended", "loss", "tasks")
        for ending in ("svg", "png")
    }
    (tmp_path / "bad.json").write_text(json.dumps({"knn": 1}))
    assert main([*words, "--out", str(out), "--results", str(tmp_path / "bad.json")]) == 2
    assert "field 'knn': expected" in capsys.readouterr().err
