"""How a compute budget is best divided between parameters and tokens."""

import attrs

TRAINING = 6
"""FLOPs of training for each parameter and token: two forwards, four backwards."""


@attrs.frozen(kw_only=True)
class ScalingLaw:
    """`L(N, D) = E + A / N^alpha + B / D^beta`: nats a token of N parameters that were trained on D tokens."""

    E: float
    """The entropy of text, which no model is below."""
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens whose loss is lowest of all with `6 N D = flops`.

        N = G (C / 6)^(beta / (alpha + beta)), D = (C / 6) / N, with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        """
        both = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        parameters = ratio * (flops / TRAINING) ** (self.beta / both)
        return parameters, flops / TRAINING / parameters


HOFFMANN = ScalingLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""The third approach of arXiv:2203.15556, which its first two, of about 20 tokens a parameter, do not bear out."""
BESIROGLU = ScalingLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
"""The same points fitted anew (arXiv:2404.10102): 18 to 27 tokens a parameter, which agrees with the other two approaches."""
