"""The networks of the MNIST runs, one small file per family."""

from .critic import Critic, NormalisedCritic
from .digit_classifier import DigitClassifier, frozen_classifier
from .generator import Generator

__all__ = ["Critic", "DigitClassifier", "Generator", "NormalisedCritic", "frozen_classifier"]
