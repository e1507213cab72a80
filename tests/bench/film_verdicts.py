"""Truth against verdict against blur, from end to end: `python film_verdicts.py FOLDER [BLUR_PX...]`.

The films of configs/films.toml, through microscopes of each width: `hamscope prepare` with their flat field and mask,
thresholded frame by frame (Otsu) or by one level for the series, then `hamscope classify` at stride 16, told of the
width.  Prints a Markdown table; what is there already in FOLDER is not made again.
"""

import subprocess
import sys
from pathlib import Path

import hamscope.film
from hamscope.config import load_config
from hamscope.data.results import read_results
from hamscope.verdict import percent, source_verdicts

ROOT = Path(__file__).parents[2]
BLURS = (0.0, 0.5, 1.0, 1.5, 2.0)
RULES = ("otsu", "series")
STRIDE = 16


def run(*arguments) -> None:
    """A command of hamscope; its messages are shown where it fails."""
    command = [sys.executable, "-m", "hamscope_hpc.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def kept(draw):
    """`draw_states` that remembers its last film, whatever the blur."""
    last = {}

    def drawn(film):
        if film.name not in last:
            last.clear()
            last[film.name] = draw(film)
        return last[film.name]

    return drawn


def main(folder: Path, blurs: list[float]) -> None:
    """Make what is missing, and print what was read from it."""
    folder.mkdir(exist_ok=True)
    # The pattern does not depend on the microscope, and takes most of the time.
    hamscope.film.draw_states = kept(hamscope.film.draw_states)
    films = load_config(ROOT / "configs" / "films.toml").film
    cells = {}
    for film in films:
        for blur in blurs:
            stem = folder / f"{film.name}-{blur:g}"
            own = film.model_copy(update={"blur_px": blur})
            path, calibration = Path(f"{stem}.tif"), Path(f"{stem}.calibration")
            if not path.exists():
                hamscope.film.write_film(own, path)
            for rule in RULES:
                prepared, results = Path(f"{stem}-{rule}.h5"), Path(f"{stem}-{rule}-results.h5")
                if not results.exists():
                    run("prepare", path, "--flat", calibration / "flat.tif", "--mask", calibration / "mask.png",
                        "--threshold", rule, "--out", prepared)  # fmt: skip
                    run("classify", prepared, "--stride", STRIDE, "--psf-px", blur, "--out", results)
                (verdict,) = source_verdicts(read_results(results, pictures=False))
                cells[film.model, blur, rule] = f"{verdict.headline}, {percent(verdict.share)}"
                print(
                    film.name, blur, rule, cells[film.model, blur, rule], percent(verdict.confident_share), flush=True
                )
    for rule in RULES:
        print(f"\n| {rule} |", *(f"{blur:g} px |" for blur in blurs))
        print("|---" * (1 + len(blurs)) + "|")
        for film in films:
            print(f"| {film.model} |", *(f"{cells[film.model, blur, rule]} |" for blur in blurs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [float(text) for text in sys.argv[2:]] or list(BLURS))
