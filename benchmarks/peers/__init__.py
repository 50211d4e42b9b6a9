"""The baselines, by the name that ``--peers`` takes."""

PEERS = {
    "loop": "one PyTorch call per tensor",
    "foreach": "PyTorch's multi-tensor calls",
    "eager": "the formula in plain PyTorch, as people write it",
    "compile": "that formula under torch.compile; its compile time stands apart, as the first call",
}
