"""The metrics of `classify`, and every query of the Grafana dashboard, against what Ray's metrics port really says."""

import json
import re
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import ray
from bundles import blobs, small_bundle
from engines import ROOT

from hamscope.config import Classify
from hamscope.data.results import read_results
from hamscope_hpc.classify import classify

DASHBOARD = ROOT / "docs" / "grafana-hamscope.json"
STAGES = {"read", "threshold", "network", "distances", "write"}
PREFIX = "ray_hamscope_classify_"

pytestmark = pytest.mark.usefixtures("local_ray")


class Scrape:
    """All that the metrics port said: `types` by name; `series`, (name, labels) to the last value."""

    def __init__(self):
        self.types, self.series = {}, {}

    def look(self) -> None:
        """Ask once."""
        [node] = [node for node in ray.nodes() if node["Alive"]]
        assert node["NodeManagerAddress"] == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        for line in lines:
            if line.startswith("# TYPE "):
                self.types[line.split()[2]] = line.split()[3]
            elif found := re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line):
                name, labels, value = found.groups()
                pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
                self.series[name, frozenset(pairs)] = float(value)

    def matching(self, name: str, matchers: list[tuple[str, str, str]]) -> dict[frozenset, float]:
        """The series of a metric whose labels are as the matchers (label, operator, value) of a query want them."""
        tests = {"=": lambda own, given: own == given, "=~": lambda own, given: re.fullmatch(given, own) is not None}
        return {
            labels: value
            for (own, labels), value in self.series.items()
            if own == name and all(tests[how](dict(labels).get(label, ""), given) for label, how, given in matchers)
        }


@pytest.fixture(scope="module")
def scrape(tmp_path_factory) -> Scrape:
    """What was there to see while a film of 3 good frames and 3 of NaN was classified, and just after.

    The tries of the bad frames take seconds, so the actor lives through several exports of its counters.
    """
    folder = tmp_path_factory.mktemp("metrics")
    film = (40 + 100 * blobs((6, 40, 40), 3)).astype(float)
    film[3:, 1, 1] = np.nan
    np.save(folder / "film.npy", film)
    bundle = small_bundle(folder / "bundle")
    found, end = Scrape(), threading.Event()

    def watch():
        while not end.wait(0.2):
            found.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    out = classify([str(folder / "film.npy")], bundle, folder / "seen.h5", Classify(stride=2), actors=1)
    deadline = time.monotonic() + 30
    while list(found.matching(f"{PREFIX}queue", [("run", "=", "seen")]).values()) != [0.0]:
        assert time.monotonic() < deadline, "the end of the queue was not exported"
        time.sleep(0.2)
    end.set()
    thread.join()
    found.windows = int(read_results(out).n_windows.sum())
    return found


def test_the_numbers_are_those_of_the_run(scrape):
    """Frames, frames done, quarantined and queue at the end; seconds of the five stages, and of any other.

    Every window of the film has a pattern.  Seen to fail with quarantined frames counted as done.
    """
    mine = [("run", "=", "seen")]
    last = {name: list(scrape.matching(PREFIX + name, mine).values())
            for name in ("frames", "frames_done", "quarantined", "queue", "windows_total")}  # fmt: skip
    assert last == {
        "frames": [6], "frames_done": [3], "quarantined": [3], "queue": [0], "windows_total": [scrape.windows],
    }  # fmt: skip
    assert scrape.windows == 3 * 13 * 13
    seconds = scrape.matching(f"{PREFIX}stage_seconds_total", mine)
    by_stage = {dict(labels)["stage"]: value for labels, value in seconds.items()}
    assert set(by_stage) >= STAGES
    assert all(0 < value < 60 for value in by_stage.values())


def queries() -> list[tuple[str, str]]:
    """The expression and the legend of every target of the dashboard, and what its variables ask for."""
    dashboard = json.loads(Path(DASHBOARD).read_text())
    found = [(target["expr"], target["legendFormat"]) for panel in dashboard["panels"] for target in panel["targets"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found.append((f"sum by ({label}) ({name}{{}})", ""))
    return found


@pytest.mark.parametrize("expr, legend", queries())
def test_every_query_of_the_dashboard_finds_its_series(scrape, expr, legend):
    """Each selector matches a series of the port, labels that are grouped by or shown are there, rates are of counters.

    Seen to fail with a counter without its _total, with a label that does not exist, and with the rate of a gauge.
    """
    expr = expr.replace("$run", "seen")
    selectors = re.findall(r"(\w+)\{([^}]*)\}(\[\w+\])?", expr)
    assert selectors and "$" not in expr
    assert not re.search(r"ray_\w+(?![\w{])", expr), "a metric without a selector"
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expr) for label in labels.split(",")}
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    assert shown <= grouped
    for name, inside, span in selectors:
        matchers = re.findall(r'(\w+)\s*(=~|=)\s*"([^"]*)"', inside)
        assert len(matchers) == len([part for part in inside.split(",") if part.strip()])
        series = scrape.matching(name, matchers)
        assert series, f"{name} with {matchers} is not at the port"
        assert all(grouped <= {label for label, _ in labels} for labels in series)
        assert bool(span) == bool(re.search(r"(rate|increase)\(" + re.escape(name), expr))
        assert not span or scrape.types[name] == "counter"


def test_the_dashboard_shows_every_metric_of_ours(scrape):
    """Seen to fail with a panel removed."""
    ours = {name for name, labels in scrape.series if name.startswith(PREFIX)}
    assert ours == {name for expr, _ in queries() for name in re.findall(rf"{PREFIX}\w+", expr)}
