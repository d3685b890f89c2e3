"""A picture of a field, as the UI shows it."""

import base64
import io

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray


def markdown_of(field: NDArray[np.float64]) -> str:
    """Return an image within Markdown: the coldest is blue, the hottest red."""
    png = io.BytesIO()
    imsave(png, field, cmap="coolwarm", format="png")
    return f"![temperature](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})"
