"""The baselines, by the name that ``--peers`` takes."""

PEERS = {
    "loop": "one PyTorch call per tensor",
    "foreach": "PyTorch's multi-tensor calls",
    "fused": "PyTorch's own fused optimizer, then a foreach clamp",
    "drop-in": "wk.gradient_penalty, wk.critic_loss and backward, where a whole update is the question",
    "eager": "the formula in plain PyTorch, as people write it",
    "compile": "that formula under torch.compile; its compile time stands apart, as the first call",
    "plain": "the eager one in a process of its own, where nothing of this package is loaded",
    "jax": "JAX with optax, each update one jitted function, in a process of its own",
    "keras": "Keras 3 on TensorFlow, each update one tf.function, in a process of its own",
}

# Baselines in another process: the module that serves them there.
PROCESSES = {"plain": "benchmarks.peers.plain", "jax": "benchmarks.peers.jax", "keras": "benchmarks.peers.keras"}
