"""Which graphics processors PyTorch can compute on."""

__all__ = ["graphics_processors"]


def graphics_processors() -> tuple[str, ...]:
    """Return their names; none if PyTorch was built without support for them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
