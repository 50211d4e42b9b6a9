"""The Wasserstein losses (Arjovsky et al. 2017, equations 2 and 3 and algorithm 1, lines 5 and 10)."""


def critic_loss(real_scores, fake_scores, penalty=None, *, weight=10.0):
    """mean(fake) − mean(real) [+ weight·penalty]; minimised by the critic."""
    loss = fake_scores.mean() - real_scores.mean()
    return loss if penalty is None else loss + weight * penalty


def generator_loss(fake_scores):
    """−mean(fake); minimised by the generator."""
    return -fake_scores.mean()
