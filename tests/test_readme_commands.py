"""The commands of README.md and docs/: all compose, and those on sources, models and overlays run with little data."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = ("trainer.max_steps=2", "tracker.system_metrics=false")
SESSIONS = f"source.path={ROOT}/examples/sessions"
FILES = ("source=files", "source.path=my.csv")


def trained(desk, seen):
    """The run that was printed, which must be whole: finished, and its adapter the version that was printed."""
    run = desk.run_of(seen)
    model, _, number = seen.line("registry").split(" (")[0].partition(" version ")
    assert run.info.status == "FINISHED"
    assert run.data.tags["registry.version"] == f"{model}/{number}"
    assert desk.client.get_model_version(model, number).run_id == run.info.run_id
    assert {"base/loss", "final/loss", "train/loss"} <= run.data.metrics.keys()
    return run


def counts(seen):
    """Rows by task, as printed."""
    return {task: int(count) for task, count in (each.rsplit(" ", 1) for each in seen.line("tasks").split(", "))}


def commands(page: Path) -> list[list[str]]:
    """The arguments of each ``loraloop`` line in a page's code, without those that print something else.

    In a block with prompts (``$ loraloop ...``) the other lines are output.
    """
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf8"), re.M | re.S):
        prompt = r"\$ " if re.search(r"^\$ ", block, re.M) else ""
        lines = re.findall(rf"^{prompt}loraloop(?: (.*))?$", block, re.M)
        found += [[word for word in shlex.split(line, comments=True) if word not in ("--cfg", "job")] for line in lines]
    return [command for command in found if not {"--help", "--shell-completion"} & set(command)]


def single(command: list[str]) -> list[str]:
    """One job of a command: the first of each list of values, without what a search proposes."""
    if "-m" not in command:
        return command
    searched = re.compile(r"=(choice|range|tag|int|interval)\(")
    fixed = [word for word in command if word != "-m" and not searched.search(word)]
    return [word if re.search(r"=[\[{]", word) else word.split(",")[0] for word in fixed]


WALKS = {"extending.md", "own_task.md"}
"""Pages with groups of their own, whose commands a test of their own gives in their order."""
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if commands(page) and page.name not in WALKS
]
composed: set[tuple[str, ...]] = set()


def test_the_commands_of_the_pages_are_found():
    """The blocks below are read, so that the test over them tests something."""
    assert len(commands(ROOT / "README.md")) >= 8
    assert len(PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_composes(desk, page):
    """Each ``loraloop ...`` line of README.md and of docs/ names groups, choices and keys that exist."""
    for command in map(single, commands(page)):
        if tuple(command) in composed:
            continue
        seen = desk.attempt(*command, "--cfg", "job")
        assert seen.code == 0, f"{command}: {seen.err}"
        assert "stage:" in seen.out
        composed.add(tuple(command))


def test_vault_draws_reads_and_trains(office):
    """source=vault draws vaults, reads them by OCR and trains on three pairs of each."""
    seen = office("source=vault", "source.synthetic=6", *STEPS)
    assert counts(seen) == {"vault_count": 6, "vault_denoise": 6, "vault_flips": 6}
    run = trained(office, seen)
    assert "final/vault_denoise/loss" in run.data.metrics


@pytest.fixture(scope="module")
def scans(office):
    """Five images of a person's own in `images/`, each with its text beside it, and a sixth that is cut off."""
    from PIL import Image, ImageDraw, ImageFont

    folder = office.folder / "images"
    folder.mkdir(exist_ok=True)  # the module may be carried out in parts
    for number, text in enumerate(("HELLO WORLD", "THE VAULT IS OPEN", "TWO LINES HERE", "ONE KEY LEFT", "HTTH THHT")):
        image = Image.new("L", (620, 110), 255)
        ImageDraw.Draw(image).text((20, 35), text, fill=0, font=ImageFont.load_default(36))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text)
    whole = (folder / "0.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_own_images_train_and_a_torn_one_is_counted(office, scans):
    """source.path=images/ with texts beside trains on corrections; the truncated image is counted with its reason."""
    seen = office("source=vault", "source.path=images/", "source.synthetic=0", *STEPS)
    assert "quarantined: 1\n  1 x is truncated" in seen.out
    assert "images/torn.png" in seen.out
    assert counts(seen)["vault_denoise"] == 5
    dataset = office.artifacts(trained(office, seen)) / "dataset" / "dataset.jsonl"
    assert "THE VAULT IS OPEN" in dataset.read_text()


def test_own_images_without_texts_train_as_well(office, scans):
    """Without the texts, each image still gives a row that maps seeded flips to what was read in it."""
    shutil.copytree(scans, office.folder / "bare", ignore=shutil.ignore_patterns("*.txt"))
    seen = office("source=vault", "source.path='bare/*.png'", "source.synthetic=0", *STEPS)
    assert counts(seen) == {"vault_flips": 5}
    trained(office, seen)


def test_sessions_become_corrective_examples(office):
    """source=sessions on the shipped examples trains on all four agents, and says what it set aside and why."""
    shutil.copytree(ROOT / "examples" / "sessions", office.folder / "logs")
    seen = office("source=sessions", "source.path=logs/", *STEPS)
    assert set(counts(seen)) == {"actor", "coordinator", "recovery", "validator"}
    assert "quarantined: 2" in seen.out
    assert "session.json is not JSON" in seen.out
    trained(office, seen)


def test_mixed_is_sixty_to_forty(office):
    """source=mixed trains on three flips to two vault rows, each part scored as a slice of its own."""
    seen = office("source=mixed", "source.sources.flips.runs=2", "source.sources.vault.synthetic=4", *STEPS)
    tasks = counts(seen)
    assert tasks["count"] * 2 == 3 * (sum(tasks.values()) - tasks["count"])
    assert "final/count/loss" in trained(office, seen).data.metrics


def my_csv(desk):
    """The README's `my.csv`: columns question and answer."""
    rows = "".join(f"what is {number} plus 1?,{number + 1}\n" for number in range(40))
    (desk.folder / "my.csv").write_text(f"question,answer\n{rows}")


def test_own_rows_train_by_their_columns_names(office):
    """source=files trains on a CSV whose columns are named on the command line, every row of it."""
    my_csv(office)
    seen = office(*FILES, "source.columns={input: question, output: answer}", *STEPS)
    assert seen.line("rows") == "32 to train on, 8 held out"
    dataset = office.artifacts(trained(office, seen)) / "dataset" / "dataset.jsonl"
    assert "what is 39 plus 1?" in dataset.read_text()


def test_a_column_that_is_not_there_is_answered_with_those_that_are(desk):
    """A mapped column that the CSV lacks ends with one line that lists its columns, before anything is tracked."""
    my_csv(desk)
    seen = desk.attempt(*FILES, "source.columns={input: frage, output: answer}", *STEPS)
    assert seen.code == 1
    (line,) = seen.err.splitlines()
    assert line.startswith("loraloop: my.csv has no column 'frage'")
    assert "question, answer" in line
    assert not (desk.folder / "mlruns" / "mlflow.db").exists()


def test_a_hub_dataset_without_a_network_is_one_clear_error(desk):
    """source=hub with a hub that does not answer ends with one line that names dataset, address and ways out."""
    seen = desk.process("source=hub", "source.name=tatsu-lab/alpaca", HF_ENDPOINT="http://127.0.0.1:9")
    assert (seen.code, seen.out) == (1, "")
    (line,) = seen.err.splitlines()
    assert line.startswith("loraloop: source.name=tatsu-lab/alpaca: the Hugging Face Hub (http://127.0.0.1:9) cannot")
    assert "HF_ENDPOINT" in line
    assert not (desk.folder / "mlruns" / "mlflow.db").exists()


def test_nf4_trains_on_the_cpu(office):
    """model=tiny_nf4 trains an adapter on the base in four bits, and the manifest says so."""
    from loraloop.registry import manifest

    seen = office("model=tiny_nf4", "source.runs=1", *STEPS)
    run = trained(office, seen)
    base = manifest.read(office.artifacts(run) / "adapter").base
    assert (base.name, base.quantization) == ("bundled:tiny", "nf4-double")


def test_a_model_that_cannot_be_had_is_refused_before_any_work(desk):
    """model=llama7b_nf4 without a GPU or the weights ends with code 2 and every reason, and writes no database."""
    seen = desk.process(
        "model=llama7b_nf4", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(desk.folder / "hf"), CUDA_VISIBLE_DEVICES=""
    )
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.startswith("loraloop: 2 problems:\n  - model.requires_gpu=true and this machine has no CUDA GPU")
    assert "model.name=meta-llama/Llama-2-7b-hf is not in the local cache" in seen.err
    assert "Traceback" not in seen.err
    assert not any(name.endswith("mlflow.db") for name in desk.files())


@pytest.mark.parametrize(
    ("name", "rank", "trainer", "data"),
    [
        ("ocr", 16, "sft", "source.synthetic=8"),
        ("action", 8, "sft", SESSIONS),
        ("decomposition", 16, "dpo", SESSIONS),
        ("recovery", 12, "sft", SESSIONS),
    ],
    ids=["ocr", "action", "decomposition", "recovery"],
)
def test_each_specialist_trains_into_a_registry_of_its_own(office, name, rank, trainer, data):
    """+experiment=NAME_specialist trains with the specialist's source, rank, loss, and registers as loraloop-NAME."""
    seen = office(f"+experiment={name}_specialist", data, *STEPS)
    assert seen.line("registry") == f"loraloop-{name} version 1 (candidate)"
    run = trained(office, seen)
    assert run.data.params["lora.r"] == str(rank)
    assert run.data.tags["choice.trainer"] == trainer
    assert run.info.run_name.startswith(f"{name}_specialist-")


def test_the_completion_script_and_the_configuration_are_printed(desk):
    """`--cfg job` prints the configuration and `--shell-completion install=bash` a script that bash accepts."""
    assert "r: 16" in desk("--cfg", "job").out
    script = desk.process("--shell-completion", "install=bash")
    assert script.code == 0
    subprocess.run(["bash", "-n"], input=script.out, text=True, check=True)
    assert list(desk.folder.iterdir()) == []
