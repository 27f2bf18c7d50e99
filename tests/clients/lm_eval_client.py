"""lm-eval: a loglikelihood task through completions, a generation task through chat.

Arguments: URL, tokenizer, data.
"""

import json
import sys

import lm_eval
from lm_eval.api.task import ConfigurableTask

url, tokenizer, data = sys.argv[1:]
FILES = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data}}, "test_split": "test"}


def task(name, **more):
    """A task on the lines of the file."""
    return ConfigurableTask(
        config={"task": name, "doc_to_text": "{{question}}", "num_fewshot": 0, "target_delimiter": "", **FILES, **more}
    )


def run(model, path, made, **more):
    """The model's answers to a task, in the order of the file."""
    arguments = {
        "model": "base",
        "base_url": f"{url}{path}",
        "tokenizer": tokenizer,
        "tokenizer_backend": "huggingface",
        "max_retries": 1,
        **more,
    }
    chat = "chat" in model
    found = lm_eval.simple_evaluate(
        model, model_args=arguments, tasks=[made], log_samples=True, bootstrap_iters=0, apply_chat_template=chat
    )
    (samples,) = found["samples"].values()
    return [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


choice = task("choice", output_type="multiple_choice", doc_to_choice="{{choices}}", doc_to_target="{{answer}}")
scored = run("local-completions", "/v1/completions", choice, tokenized_requests=True, batch_size=2)
told = task("told", output_type="generate_until", doc_to_target="x", generation_kwargs={"until": ["\n"]})
said = run("local-chat-completions", "/v1/chat/completions", told, tokenized_requests=False)
print(json.dumps({"scored": scored, "said": said}))
