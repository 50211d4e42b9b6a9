"""Philox4x32-10 and torch's map to U[0, 1), in plain Python."""

import struct

MASK = 2**32 - 1


def words(seed, block, subsequence):
    """The four words of counter (block, subsequence) under the key ``seed``, each of 64 bits."""
    key = [seed & MASK, seed >> 32]
    counter = [block & MASK, block >> 32, subsequence & MASK, subsequence >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [second >> 32 ^ counter[1] ^ key[0], second & MASK, first >> 32 ^ counter[3] ^ key[1], first & MASK]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return counter


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def unit_interval(word):
    u = float32(float32(word) * 2.0**-32 + 2.0**-33)
    return 0.0 if u == 1 else u


def uniform(seed, offset, index, threads):
    """Element ``index`` of what torch draws with ``threads`` CUDA threads."""
    thread, turn = index % threads, index // threads
    return unit_interval(words(seed, offset // 4 + turn // 4, thread)[turn % 4])
