"""Networks from Caffe: ``python -m deconvnet.caffe NET.prototxt NET.caffemodel OUT.yaml`` writes one that is read here.

OUT.yaml lists the layers under Caffe's names and says how images are made; OUT.safetensors beside it has the weights.
OpenCV reads the weights, and runs the network too: what it gives must be what the network written gives.
"""
