"""A picture of a field, as the UI shows it."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def markdown_of(field: NDArray[np.float64]) -> str:
    """Return an image within Markdown: the coldest is blue, the hottest red."""
    low, high = field.min(), field.max()
    levels = np.uint8(255 * (field - low) / (high - low or 1))
    image = ImageOps.colorize(Image.fromarray(levels), "navy", "firebrick", mid="white")
    png = io.BytesIO()
    image.save(png, "PNG")
    return f"![temperature](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})"
