"""Writes fastgrnn_fixture.h: a small FastGRNN with its heads, two turns, and the loss and gradients that PyTorch finds in float64.

    python3 make_fastgrnn_fixture.py > fastgrnn_fixture.h      (PyTorch of any version; the test itself needs none)"""
import torch

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
I, H, R, T, C, N = 6, 5, 2, 3, 5, 2


def make(*shape):
    return (torch.randn(*shape) * 0.4).requires_grad_()


cell = [make(H, I), make(H, I), make(H, R), make(R, H), make(H, R), make(R, H), make(H), make(H), make(1), make(1)]
n_rows = T + C + 3 + T
heads, bias = make(n_rows, H), make(n_rows)
x = torch.randn(N, I)
tiers = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
context, temperature, top_p = [1, 3], [0.4, 1.3], [0.9, 0.5]
quality, confidence, weight = torch.tensor([[0.2, 0.9, 1.0], [0.5, 0.0, 0.7]]), [1.0, 0.0], [1.0, 0.6]

Wz, Wh, Az, Bz, Ah, Bh, bz, bh, zeta, nu = cell
h = torch.zeros(H)
loss = 0
smooth = torch.nn.SmoothL1Loss()
for t in range(N):
    z = torch.sigmoid(Wz @ x[t] + Az @ (Bz @ h) + bz)
    c = torch.tanh(Wh @ x[t] + Ah @ (Bh @ h) + bh)
    h = (torch.sigmoid(zeta) * (1 - z) + torch.sigmoid(nu)) * c + z * h
    raw = heads @ h + bias
    part = -weight[t] * (tiers[t] * torch.log_softmax(raw[:T], 0)).sum() - torch.log_softmax(raw[T:T + C], 0)[context[t]]
    part = part + 0.5 * smooth(2 * torch.sigmoid(raw[T + C]), torch.tensor(temperature[t])) + 0.5 * smooth(torch.sigmoid(raw[T + C + 1]), torch.tensor(top_p[t]))
    part = part + 0.3 * torch.nn.functional.binary_cross_entropy_with_logits(raw[T + C + 2], torch.tensor(confidence[t]))
    part = part + 0.5 * torch.nn.functional.binary_cross_entropy_with_logits(raw[T + C + 3:], quality[t], reduction="sum")
    loss = loss + part / N
loss.backward()
params = cell + [heads, bias]


def row(name, values):
    print(f"static const float {name}[] = {{{', '.join(f'{float(v):.9g}f' for v in values)}}};")


print("/* Made by make_fastgrnn_fixture.py with PyTorch in float64. */")
row("fixture_params", torch.cat([p.detach().flatten() for p in params]))
row("fixture_gradient", torch.cat([p.grad.flatten() for p in params]))
row("fixture_x", x.flatten())
row("fixture_state", h.detach())
print(f"static const double fixture_loss = {float(loss):.12g};")
