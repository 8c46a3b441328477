"""Where networks run, and how long they take there: torch, ONNX Runtime, OpenVINO, NCNN, TensorRT."""
