"""How OpenMP's threads wait for each other in the scripts that train; to be imported before torch, which loads it.

They spin for some 30 µs, as long as Python takes from one operation to the next, then leave their core to whoever needs
it. An iteration of train_mnist.py in bfloat16 on two cores of an AMD EPYC, ms and times as fast as with 1000 spins,
medians of 12 and of 5 rounds in turn::

    spins                   alone           beside a process that takes a core
    1000, some 10 µs        128             168
    2000                    115   1.08      193   0.90
    3000                    128   1.08      215   0.82
    5000                    118   1.16      263   0.67
    10000                   116   1.13      343   0.51
    300000, the default     113   1.17      284   0.56

In a quieter hour 3000 brought 1.19. What is set in the environment stays.
"""

import os

os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"} | os.environ
