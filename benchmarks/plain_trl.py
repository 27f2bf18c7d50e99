"""One trial as a person would script it with TRL alone; benchmarks/sweep.py runs it in a shell loop.

python benchmarks/plain_trl.py ROWS.json MODEL --rank 8 --alpha 16 --learning-rate 5e-3 --batch 4
"""

import argparse
import json
import tempfile
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("model")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    print("eval_loss", trial(**vars(arguments)))


def trial(
    rows: Path, model: str, rank: int, alpha: float, learning_rate: float, batch: int, save: Path | None = None
) -> float:
    data = json.loads(Path(rows).read_text())
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"),
            args=SFTConfig(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=batch,
                per_device_eval_batch_size=64,
                learning_rate=learning_rate,
                warmup_steps=0.1,
                gradient_checkpointing=False,
                bf16=False,
                eval_strategy="epoch",
                save_strategy="no",
                logging_steps=10,
                disable_tqdm=True,
                report_to="none",
                use_cpu=True,
                seed=0,
            ),
            train_dataset=Dataset.from_list(data["train"]),
            eval_dataset=Dataset.from_list(data["validation"]),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=rank,
                lora_alpha=alpha,
                lora_dropout=0.05,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            ),
        )
        trainer.train()
        loss = float(trainer.evaluate()["eval_loss"])
        trainer.save_model(str(save or folder))
        return loss


if __name__ == "__main__":
    main()
