"""Scores of MediaPipe's AudioClassifier as JSON: audio_classifier.py MODEL.tflite FILE.wav [ALLOWED_LABEL]; needs requirements/mediapipe.txt."""

import json
import sys
import wave

import numpy as np
from mediapipe.tasks.python import BaseOptions, audio
from mediapipe.tasks.python.components.containers import AudioData

model, file, *allowed = sys.argv[1:]
with wave.open(file) as opened:  # of 16 bit
    samples = np.frombuffer(opened.readframes(opened.getnframes()), "<i2").reshape(-1, opened.getnchannels()).astype(np.float32) / 32768
    rate_hz = opened.getframerate()
options = audio.AudioClassifierOptions(base_options=BaseOptions(model_asset_path=model), category_allowlist=allowed or None)
with audio.AudioClassifier.create_from_options(options) as classifier:
    results = classifier.classify(AudioData.create_from_array(samples, rate_hz))
print(json.dumps([{head.head_name: {one.category_name or str(one.index): one.score for one in head.categories} for head in result.classifications}
                  for result in results]))  # fmt: skip
