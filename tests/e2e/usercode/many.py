"""Two thousand assets, each with a description, in layers."""

import dagster as dg

LAYERS, WIDTH = 20, 100


def asset_of(layer: int, place: int) -> dg.AssetsDefinition:
    """Return an asset that needs two of the layer before."""

    @dg.asset(
        name=f"asset_{layer}_{place}",
        deps=[f"asset_{layer - 1}_{each % WIDTH}" for each in (place, place + 1) if layer],
        description="What it is, in the words of whoever made it. " * 20,
    )
    def made() -> None:
        return None

    return made


defs = dg.Definitions(
    assets=[asset_of(layer, place) for layer in range(LAYERS) for place in range(WIDTH)]
)
