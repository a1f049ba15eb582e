"""`python -m absld_search.evaluate CHECKPOINT`: any network's accuracies under attack, class by class.

python -m absld_search.evaluate runs/train/KEY/model.safetensors --workload digits --attacks clean,pgd20,apgd
python -m absld_search.evaluate resnet18.pt --workload cifar10 --attacks clean,fgsm,pgd20,cw,aa --data-dir DATA

Writes OUT/evaluation.json (docs/evaluate.schema.json says what stands in it) and OUT/images.parquet, the verdict on
every image, from which `core/results` and the analysis compute the same numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from absld_search import endings
from absld_search.words import UsageError

DEFAULT = "clean,fgsm,pgd20,cw,apgd"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--workload", default="digits", show_default=True, help="Whose data, radius and step size.")
@click.option(
    "--model", help="The network: resnet-18, wrn-34-10, ...; a wrong one lists them.  [default: the workload's student]"
)
@click.option("--attacks", default=DEFAULT, show_default=True, help="Names or metric words, with commas.")
@click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True)
@click.option("--images", type=click.IntRange(min=1), help="Only the first so many.  [default: all]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Of the attacks' random numbers.  [default: the one of all studies]",
)
@click.option("--source", type=click.Path(path_type=Path), help="Checkpoint whose examples `transfer` hands over.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), envvar="ABSLD_DATA_DIR", default=Path("data"),
              show_default=True, help="Where the workload's data set lies.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="[default: CHECKPOINT.evaluation beside it]")
def main(**words: Any) -> None:
    """Attack the network in CHECKPOINT (.safetensors, or a .pt of tensors alone); run again, it continues."""
    try:
        with endings.said("the verdicts on the batches that were finished are kept"):
            _evaluate(**words)
    except ArithmeticError as error:
        click.echo(f"failed: {words['checkpoint']}: {error} are not finite: no accuracy is worth anything", err=True)
        sys.exit(3)


def _evaluate(
    checkpoint: Path, workload: str, model: str | None, attacks: str, split: str, images: int | None,
    seed: int | None, source: Path | None, device: str, data_dir: Path, out: Path | None,
) -> None:  # fmt: skip
    import torch

    from absld_search import checkpoint_evaluation as door
    from absld_search.core.evaluation import EVALUATION_SEED

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no GPU that torch can use.")
    torch.set_num_threads(1)
    names = tuple(word.strip() for word in attacks.split(",") if word.strip())
    chosen = EVALUATION_SEED if seed is None else seed
    asked = door.Request(checkpoint, workload, model, names, split, images, chosen, source, device, data_dir)
    folder = out or checkpoint.with_name(f"{checkpoint.name}.evaluation")
    written = door.run(asked, folder, progress=lambda stage, done, total: click.echo(f"{stage}  {done}/{total} images"))
    for name, found in written["attacks"].items():
        low, (least, most) = found["worst_class_accuracy"], found["intervals"]["worst_class_debiased"]
        click.echo(f"{name:<16}{found['accuracy']:.4f}   worst class {low:.4f} of {found['worst_class_n']} images; "
                   f"debiased {found['worst_class_debiased']:.4f} [{least:.4f}, {most:.4f}]")  # fmt: skip
    both = written["conjunction"]
    click.echo(f"{'all of them':<16}{both['accuracy']:.4f}   worst class {both['worst_class_accuracy']:.4f}")
    if written["classes_without_images"]:
        click.echo(f"classes without images: {', '.join(written['classes_without_images'])}")
    click.echo(f"{folder / 'evaluation.json'}")


if __name__ == "__main__":
    main()
