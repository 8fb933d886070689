"""TensorFlow Serving's protocol, REST and gRPC, on a bundle's SavedModels.

`rest_call` and `proxy` are the web workers' part, which knows no TensorFlow and passes bytes on; the rest is the model
process' part. Formats and errors are those of TensorFlow Serving's documentation
(https://www.tensorflow.org/tfx/serving/api_rest) and sources, so that its clients work unchanged.
"""
