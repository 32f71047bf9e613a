"""Masters of 16-bit weights that do not lose their first updates."""

from __future__ import annotations

import torch

CHUNK = 1 << 24  # elements
HALF = 1 << 15  # of the 16 bits that a float32 has more than a bfloat16
SMALLEST = 0x0080_0000  # the bits of the smallest normal float32


def dither(masters: torch.Tensor, *, seed: int) -> None:
    """Spread float32 masters, in place, evenly over the values that round to the same bfloat16 weights.

    A master that begins as the 16-bit weight itself has to move by half a step of that format before the weight moves at
    all: at a learning rate of 8e-5, the first three updates of a weight of 0.1 do nothing. Of spread ones as large a part
    moves by a whole step as the update is part of a step, so the weights follow their masters in the mean from the first
    update on. Zeros stay.
    """
    generator = torch.Generator(masters.device).manual_seed(seed)
    for piece in masters.view(-1).view(torch.int32).split(CHUNK):
        noise = torch.randint(1 - HALF, HALF, piece.shape, dtype=torch.int32, device=piece.device, generator=generator)
        piece += noise.masked_fill_((piece & 0x7FFF_FFFF) < SMALLEST, 0)
