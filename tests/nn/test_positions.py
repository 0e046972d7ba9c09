import torch

from attnlab.nn.positions import SinusoidalPositions, sinusoids


def test_a_table_that_was_made_for_no_device_is_not_kept():
    """As a model is built without memory before the data is read, and then in earnest."""
    with torch.device("meta"):
        SinusoidalPositions(2, 3, 8)
    table = SinusoidalPositions(2, 3, 8).table
    assert not table.is_meta
    assert torch.equal(table[:3, 4:], sinusoids(3, 4))
    assert torch.equal(table[::3, :4], sinusoids(2, 4))
