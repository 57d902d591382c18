"""`mlspark models`: the networks for pictures that `model.backbone` may name, and what they cost. Runs anywhere."""

from typing import Annotated

import typer

from mlspark import storage
from mlspark.commands import options
from mlspark.models import architectures

app = options.app()

_LINE = "{:<22} {:<32} {:>13} {:>6} {:>6} {:>9} {:>8}"


@app.command()
def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Networks; left out: those with short names.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="List every name that may be given, without figures.")] = False,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Side of the pictures; else the network's own.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not measure the time of a picture.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """List the networks that model.backbone may name: parameters, least size, operations, time of a picture here."""
    if all_:
        everything = architectures.everything()
        for name in everything:
            typer.echo(name)
        if json_file:
            storage.write_json(json_file, everything)
        return
    from mlspark.models import figures

    typer.echo(_LINE.format("name", "made by", "parameters", "least", "size", "GFLOPs", "ms"))
    measured = []
    for name in names or architectures.KNOWN:
        of_network = figures.measure(name, size=size, is_timed=not quick)
        measured.append(of_network.to_json())
        milliseconds = of_network.milliseconds
        typer.echo(
            _LINE.format(
                name,
                f"{of_network.package} {of_network.upstream}",
                f"{of_network.parameters:,}",
                of_network.least_size or "-",
                of_network.size,
                f"{of_network.flops / 1e9:.2f}",
                "-" if milliseconds is None else f"{milliseconds:.1f}",
            )
        )
    typer.echo(
        "parameters: without the last layer; least, size: sides of pictures in pixels; GFLOPs: of a forward pass of one "
        "picture of\nthat size, a multiplication and an addition are two; "
        f"ms: of each picture of a batch of {figures.BATCH}, float32, one thread, here.\n"
        "mlspark models --all lists every name of timm and torchvision."
    )
    if json_file:
        storage.write_json(json_file, measured)
