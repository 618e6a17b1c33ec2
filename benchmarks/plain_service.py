"""What many would write: FastAPI, one forward a request: ``plain_service.py MODEL PORT PADDING``."""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoTokenizer, BertForSequenceClassification

from small import LENGTH

folder, port, padding = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = BertForSequenceClassification.from_pretrained(folder).eval()
app = FastAPI()


class Document(BaseModel):
    text: str


@app.post("/predict")
def predict(document: Document) -> dict[str, float]:
    inputs = tokenizer(
        document.text,
        max_length=LENGTH,
        padding="max_length" if padding == "max_length" else False,
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        shares = model(**inputs).logits.softmax(dim=1)[0].tolist()
    return dict(zip(model.config.id2label.values(), shares, strict=True))


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


uvicorn.run(app, port=int(port), log_level="warning")
