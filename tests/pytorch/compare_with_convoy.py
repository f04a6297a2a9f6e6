#!/usr/bin/env python3
r"""Convoy beside the same model in plain PyTorch.

  tests/pytorch/compare_with_convoy.py --convoy build/cpu/convoy --device cpu
  tests/pytorch/compare_with_convoy.py --convoy build/cuda/convoy --device cuda \
    --parts gradients training

gradients   f32 (no TF32): logits, loss and the gradient of every parameter from one checkpoint and
            one batch differ by at most 1e-4 of their norm, for every kind of convolution; three
            wrong models must differ by more. On a GPU also bf16: Convoy's gradients are as near to
            the f32 ones as PyTorch's own bf16 gradients are, to one bit.
training    200 steps from the same weights on the same batches with the same AdamW, in bf16 on a
            GPU (f32 masters), else in f32: the mean loss over each 20 steps differs by no more than
            Convoy's own runs of three seeds do.

Needs torch alone; exits with 77 without it, 1 where something differs.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("the package torch is not installed: nothing compared")
    sys.exit(77)

import safetensors_file
from transformer import Batch, Shape, Transformer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4   # of the norm, in f32
BF16_RATIO = 2     # one bit: Convoy's bf16 error beside PyTorch's, whose attention is f32 inside
WINDOW = 20        # steps whose losses are averaged
EVERYWHERE = '["q","k","v","o","gate","up","down"]'

VARIANTS = {
    "none": {"model.conv.kind": "none", "data.pack": "stream"},
    "static": {"model.conv.kind": "static", "model.conv.on": EVERYWHERE},
    "lowrank everywhere": {"model.conv.kind": "lowrank", "model.conv.on": EVERYWHERE,
                           "data.pack": "stream"},
    "lowrank qkv": {"model.conv.kind": "lowrank"},
    "headwise qkv, GQA, QK-norm": {"model.conv.kind": "headwise", "model.n_kv_heads": 2,
                                   "model.qk_norm": "true", "model.tie_embeddings": "false"},
}
TRAINED = ["none", "lowrank everywhere"]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--convoy", default=str(ROOT / "build/cpu/convoy"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=["gradients", "training"],
                        default=["gradients"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--json", help="file for the setting and the results, a line each")
    return parser.parse_args()


class Convoy:
    """Runs the program in a folder, on the text of this repository as byte tokens. Each line is a
    document, so that most windows hold several."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        text = folder / "text.txt"
        pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        lines = "\n".join(page.read_text() for page in pages).splitlines()
        text.write_text("\x1e".join(line for line in lines if line))
        self.tokens = folder / "text.h5"
        self.run("prepare", "--input", text, "--tokenizer", "bytes", "--separator", "0x1E",
                 "--output", self.tokens)

    def run(self, *words):
        done = subprocess.run([self.args.convoy, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"convoy {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")

    def settings(self, variant, precision, **more):
        d_model = self.args.d_model
        values = {
            "model.d_model": d_model, "model.n_layers": self.args.layers, "model.n_heads": 4,
            "model.d_ff": 2 * d_model, "model.vocab": 257, "model.seq_len": d_model,
            "model.conv.init": "normal", "model.conv.head_size": 16, "train.micro_batch": 8,
            "train.batch_tokens": 8 * d_model, "train.steps": 3, "train.precision": precision,
            "train.device": self.args.device, "data.train": self.tokens, "optimizer.lr": 1e-3,
            "lr_schedule.warmup_steps": 1, "log.console": "quiet",
        }
        values.update(VARIANTS[variant])
        values.update(more)
        if values["model.conv.kind"] == "none":
            values = {key: value for key, value in values.items() if key == "model.conv.kind"
                      or not key.startswith("model.conv.")}
        elif values["model.conv.kind"] != "headwise":
            del values["model.conv.head_size"]
        return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]

    def config(self):
        empty = self.folder / "empty.toml"
        empty.touch()
        return empty

    def train(self, name, variant, precision, **more):
        run = self.folder / name
        self.run("train", self.config(), "--output", run,
                 *self.settings(variant, precision, **more))
        return run

    def inspect(self, what, source, *more):
        output = self.folder / "inspected.safetensors"
        self.run("inspect", what, source, *more, "--output", output)
        return safetensors_file.read(output)

    def shape(self, variant):
        heads = VARIANTS[variant].get("model.n_kv_heads", 4)
        return Shape(self.args.d_model, self.args.layers, 4, heads,
                     qk_norm="model.qk_norm" in VARIANTS[variant])


def batch_of(inspected, device, step=None):
    values = [inspected[name] for name in ("tokens", "targets", "document_start")]
    return Batch(*((v if step is None else v[step]).to(device) for v in values))


def parameters_of(inspected, device):
    others = ("tokens", "targets", "document_start", "logits", "losses")
    return {name: value.to(device) for name, value in inspected.items()
            if name not in others and not name.startswith("gradient.")}


def run_model(shape, weights, batch, compute):
    """{name: tensor} of logits, loss and all gradients."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    model = Transformer(shape, compute)
    logits = model.logits(leaves, batch)
    loss = model.loss(logits, batch)
    loss.backward()
    found = {"gradient." + name: value.grad for name, value in leaves.items()}
    return {"logits": logits.detach(), "loss": loss.detach(), **found}


def difference(a, b):
    """Norm of a - b over the norm of b."""
    a, b = a.double().cpu(), b.double().cpu()
    return ((a - b).norm() / b.norm()).item()


def differences(found, wanted):
    return {name: difference(found[name], value) for name, value in wanted.items()}


def with_loss(inspected):
    counted = (inspected["targets"] >= 0).sum()
    return {"loss": inspected["losses"].sum() / counted, **inspected}


def compared_gradients(convoy, variant, device):
    run = convoy.train("run " + variant, variant, "f32")
    ours = with_loss(convoy.inspect("gradients", run))
    exported = convoy.folder / "exported.safetensors"
    convoy.run("checkpoint", "export", run, "--output", exported)
    weights = {name: value.to(device) for name, value in safetensors_file.read(exported).items()}
    batch = batch_of(ours, device)
    shape = convoy.shape(variant)
    theirs = run_model(shape, weights, batch, torch.float32)
    found = differences(ours, theirs)
    worst = max(found, key=found.get)
    passed = found[worst] <= TOLERANCE
    print(f"{variant:28} f32   logits {found['logits']:.1e}  loss {found['loss']:.1e}  "
          f"{len(found) - 2} gradients, the worst {found[worst]:.1e} ({worst})  "
          f"{'ok' if passed else 'DIFFERS'}", flush=True)
    return {"variant": variant, "precision": "f32", "logits": found["logits"],
            "loss": found["loss"], "tensors": len(found), "worst": found[worst],
            "worst_tensor": worst, "passed": passed}, (shape, weights, batch, ours)


def wrong_models_differ(variant, case):
    """What the comparison must notice."""
    shape, weights, batch, ours = case
    mistakes = {"norm_eps": 2e-5, "rope_pairs": "interleaved", "taps_cross_documents": True}
    passed = True
    for name, value in mistakes.items():
        wrong = Shape(**{**shape.__dict__, name: value})
        found = max(differences(ours, run_model(wrong, weights, batch, torch.float32)).values())
        noticed = found > 10 * TOLERANCE
        print(f"{variant:28} wrong {name}: {found:.1e}  {'noticed' if noticed else 'NOT NOTICED'}")
        passed = passed and noticed
    return {"variant": variant, "precision": "f32", "wrong_models_noticed": passed,
            "passed": passed}


def compared_bf16(convoy, variant, device):
    """Errors of bf16 gradients against f32 ones, all tensors as one vector; Convoy's and
    PyTorch's."""
    run = convoy.train("bf16 " + variant, variant, "bf16")
    ours = convoy.inspect("gradients", run)
    weights, batch = parameters_of(ours, device), batch_of(ours, device)
    # Both start from the rounded weights, so that what differs is the arithmetic.
    rounded = {name: value.bfloat16().float() for name, value in weights.items()}
    exact = run_model(convoy.shape(variant), rounded, batch, torch.float32)
    theirs = run_model(convoy.shape(variant), rounded, batch, torch.bfloat16)
    names = [name for name in exact if name.startswith("gradient.")]
    whole = lambda tensors: torch.cat([
        (tensors[n].double().cpu() / exact[n].double().norm().cpu()).flatten() for n in names])
    errors = [difference(whole(tensors), whole(exact)) for tensors in (ours, theirs)]
    ratios = {n: difference(ours[n], exact[n]) / difference(theirs[n], exact[n]) for n in names}
    worst = max(ratios, key=ratios.get)
    passed = errors[0] <= BF16_RATIO * errors[1]
    print(f"{variant:28} bf16  error of all gradients {errors[0]:.2e}, PyTorch's {errors[1]:.2e}; "
          f"of one tensor at most {ratios[worst]:.2f} times PyTorch's ({worst})  "
          f"{'ok' if passed else 'DIFFERS'}", flush=True)
    return {"variant": variant, "precision": "bf16", "error": errors[0], "torch_error": errors[1],
            "worst_ratio": ratios[worst], "worst_tensor": worst, "passed": passed}


def column(run, name):
    rows = [json.loads(line) for line in open(run / "metrics.jsonl")]
    return [row[name] for row in rows if row["kind"] == "train"]


def torch_losses(shape, weights, batches, rates, compute, device):
    """AdamW as Convoy's configuration has it: decay on matrices and tables only, clipping at 1."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    decays = lambda name: ".conv." not in name and "norm" not in name
    groups = [{"params": [v for n, v in leaves.items() if decays(n) == wanted],
               "weight_decay": 0.1 if wanted else 0.0} for wanted in (True, False)]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.95), eps=1e-8)
    model = Transformer(shape, compute)
    losses = []
    for step, rate in enumerate(rates):
        batch = batch_of(batches, device, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = model.loss(model.logits(leaves, batch), batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def means(losses):
    return [sum(losses[i : i + WINDOW]) / WINDOW for i in range(0, len(losses), WINDOW)]


def compared_training(convoy, variant, device):
    precision = "bf16" if device == "cuda" else "f32"
    more = {"train.steps": convoy.args.steps, "lr_schedule.warmup_steps": WINDOW}
    runs = [convoy.train(f"trained {variant} {seed}", variant, precision,
                         **{"train.seed": seed, **more}) for seed in range(3)]
    settings = convoy.settings(variant, precision, **more)
    start = convoy.inspect("gradients", convoy.config(), *settings)
    batches = convoy.inspect("batches", convoy.config(), "--steps", convoy.args.steps, *settings)
    compute = torch.bfloat16 if precision == "bf16" else torch.float32
    theirs = torch_losses(convoy.shape(variant), parameters_of(start, device), batches,
                          column(runs[0], "lr"), compute, device)
    seeds = [column(run, "train_loss") for run in runs]
    rows, passed = [], True
    for i, averages in enumerate(zip(*map(means, [theirs, *seeds]))):
        spread = max(averages[1:]) - min(averages[1:])
        gap = averages[0] - averages[1]
        passed = passed and abs(gap) <= spread
        rows.append({"last_step": (i + 1) * WINDOW, "torch": averages[0], "convoy": averages[1],
                     "difference": gap, "spread_of_seeds": spread})
        print(f"{variant:28} {precision:5} steps to {(i + 1) * WINDOW:4}: PyTorch "
              f"{averages[0]:.4f}  Convoy {averages[1]:.4f}  difference {gap:+.4f}  "
              f"spread of seeds {spread:.4f}")
    print(f"{variant:28} {precision:5} training {'ok' if passed else 'DIFFERS'}", flush=True)
    return {"variant": variant, "precision": precision, "means": rows, "torch_losses": theirs,
            "convoy_losses": seeds, "passed": passed}


def all_gradients(convoy, variant, device):
    result, case = compared_gradients(convoy, variant, device)
    results = [result]
    if variant.startswith("headwise"):
        results.append(wrong_models_differ(variant, case))
    if device == "cuda":
        results.append(compared_bf16(convoy, variant, device))
    return results


def main():
    args = arguments()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_flash_sdp(False)  # attention by its formula, in f32 inside
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    if args.device == "cpu":
        torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory() as name:
        convoy = Convoy(args, pathlib.Path(name))
        for variant in args.variants:
            if "gradients" in args.parts:
                results += all_gradients(convoy, variant, args.device)
            if "training" in args.parts and variant in TRAINED:
                results.append(compared_training(convoy, variant, args.device))
    if not results:
        sys.exit(f"nothing to compare: only {TRAINED} are trained")
    if args.json:
        device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
        setting = {"torch": torch.__version__, "device": device, "d_model": args.d_model,
                   "n_layers": args.layers, "norm_eps": Shape.norm_eps,
                   "rope_theta": Shape.rope_theta, "rope_pairs": Shape.rope_pairs,
                   "tolerance": TOLERANCE}
        lines = [json.dumps(line) for line in (setting, *results)]
        pathlib.Path(args.json).write_text("\n".join(lines) + "\n")
    sys.exit(0 if all(result["passed"] for result in results) else 1)


if __name__ == "__main__":
    main()
