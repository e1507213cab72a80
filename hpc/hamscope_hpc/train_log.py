"""Where the numbers of an epoch go: log.jsonl, TensorBoard, and the metrics of Ray.

    tensorboard --logdir BUNDLE              (or, while it trains, BUNDLE.train)
    hamscope_validation_accuracy, ...        gauges that Ray exports to Prometheus, and its dashboard shows with Grafana

A line of the log has

    epoch; train_loss, train_accuracy; validation_loss, validation_accuracy; learning_rate
    images_per_second, seconds      of training, without validation, of all workers together
    waited                          share of that time that rank 0 waited for images
    flops_share                     share of the matrix limit; see hamscope.learn.speed
    flops_limit                     that limit, FLOPs a second of all workers together
"""

import json
import shutil
from pathlib import Path

from ray.util.metrics import Gauge
from tensorboardX import SummaryWriter

from hamscope.provenance import whole_file

LOG, BOARD = "log.jsonl", "tensorboard"
GAUGES = {
    "epoch": "Epochs that are done",
    "train_loss": "Mean cross entropy of the training images over the epoch",
    "train_accuracy": "Share of right answers over the epoch",
    "validation_loss": "Mean cross entropy of the held-out images",
    "validation_accuracy": "Share of right answers on the held-out images",
    "images_per_second": "Training images a second of all workers",
    "waited": "Share of the time that the steps waited for images",
    "flops_share": "Share of the matrix limit of the devices",
}


def read_log(path: Path) -> list[dict]:
    """The lines of a log; none where there is no log."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_log(path: Path, log: list[dict]) -> None:
    """Write all lines, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in log))


class Board:
    """Shows every epoch on TensorBoard and to Ray; of one process, rank 0.

    Parameters
    ----------
    storage : Path
        The folder whose `tensorboard` is written.
    done : int
        Epochs that are done: what an earlier start showed of later ones does not count.
    """

    def __init__(self, storage: Path, done: int):
        self.writer = SummaryWriter(str(storage / BOARD), purge_step=done + 1 if done else None)
        tags = {"run": storage.name.removesuffix(".train")}
        self.gauges = {name: Gauge(f"hamscope_{name}", text, tag_keys=("run",)) for name, text in GAUGES.items()}
        for gauge in self.gauges.values():
            gauge.set_default_tags(tags)

    def show(self, line: dict) -> None:
        """Show a line of the log.  It is on the disk when this returns."""
        for name, value in line.items():
            if name != "epoch":
                group, _, what = name.partition("_")
                tag = f"{what}/{group}" if group in ("train", "validation") else f"run/{name}"
                self.writer.add_scalar(tag, value, line["epoch"])
        self.writer.flush()
        for name, gauge in self.gauges.items():
            gauge.set(line[name])

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


def copy_board(storage: Path, folder: Path) -> None:
    """Put the event files into `folder`, named in their order: their own names tell the machine and the process."""
    (folder / BOARD).mkdir()
    for number, path in enumerate(sorted((storage / BOARD).glob("events.*"))):
        shutil.copyfile(path, folder / BOARD / f"events.out.tfevents.{number:04d}")
