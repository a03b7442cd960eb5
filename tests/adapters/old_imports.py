"""A program that imports what Keras 1 and 2 had, in every old way, and says what came of it. For test_run_names."""

import json
import sys

STATEMENTS = """
from keras.layers.core import Dense, Dropout, Activation, Flatten, Reshape, Permute, RepeatVector, Lambda, Masking
from keras.layers.core import *
from keras.layers.convolutional import Convolution1D, Convolution2D, Convolution3D, MaxPooling2D, ZeroPadding2D
from keras.layers.convolutional import AtrousConvolution2D, Deconvolution2D, UpSampling2D, Cropping2D, Conv2DTranspose
from keras.layers.convolutional_recurrent import ConvLSTM2D
from keras.layers.pooling import MaxPooling1D, AveragePooling2D, GlobalAveragePooling2D
from keras.layers.recurrent import LSTM, GRU, SimpleRNN, Recurrent
from keras.layers.cudnn_recurrent import CuDNNLSTM, CuDNNGRU
from keras.layers import CuDNNLSTM, CuDNNGRU, Merge, Highway, MaxoutDense, LocallyConnected1D
from keras.layers.normalization import BatchNormalization
from keras.layers.wrappers import TimeDistributed, Bidirectional
from keras.layers.merge import concatenate, add, Concatenate, Add, Multiply, multiply, average, maximum, dot
from keras.layers import merge
from keras.layers.embeddings import Embedding
from keras.layers.advanced_activations import LeakyReLU, PReLU, ELU, ThresholdedReLU
from keras.layers.noise import GaussianNoise, GaussianDropout
from keras.layers.local import LocallyConnected2D
from keras.layers.experimental.preprocessing import RandomFlip, Rescaling
from keras.engine import Layer, InputSpec, Input, Model
from keras.engine.topology import Layer, InputSpec, Input, get_source_inputs
from keras.engine.training import Model
from keras.engine.base_layer import Layer
from keras.engine.input_layer import Input
from keras.engine.network import Model
from keras.engine.sequential import Sequential
import keras.engine as engine
from keras.utils import np_utils, Sequence, to_categorical, multi_gpu_model, plot_model, OrderedEnqueuer
from keras.utils.np_utils import to_categorical, normalize
from keras.utils.data_utils import Sequence, GeneratorEnqueuer, OrderedEnqueuer, get_file
from keras.utils.generic_utils import Progbar, CustomObjectScope, get_custom_objects, custom_object_scope
from keras.utils.vis_utils import plot_model, model_to_dot
from keras.utils.visualize_util import plot
from keras.utils.layer_utils import print_summary, convert_all_kernels_in_model
from keras.utils.io_utils import HDF5Matrix
from keras.utils.training_utils import multi_gpu_model
from keras.utils.multi_gpu_utils import multi_gpu_model
from keras.preprocessing import image, sequence, text
from keras.preprocessing.image import ImageDataGenerator, load_img, img_to_array, array_to_img, Iterator
from keras.preprocessing.image import DirectoryIterator, NumpyArrayIterator, flip_axis, random_rotation
from keras.preprocessing.sequence import pad_sequences, TimeseriesGenerator, skipgrams, make_sampling_table
from keras.preprocessing.text import Tokenizer, text_to_word_sequence, one_hot
from keras_preprocessing.image import ImageDataGenerator
from keras_preprocessing.text import Tokenizer
from keras_preprocessing.sequence import pad_sequences
import keras_preprocessing
from keras import backend as K
import keras.backend.tensorflow_backend as KTF
import keras.backend.theano_backend
import keras.backend.common
from keras.backend.tensorflow_backend import set_session
from keras.objectives import mse, binary_crossentropy, categorical_crossentropy
from keras import objectives
from keras.initializations import normal, uniform, glorot_uniform
from keras import initializations
from keras.regularizers import l1, l2, l1l2, activity_l2, WeightRegularizer
from keras.constraints import maxnorm, nonneg, unitnorm, max_norm, non_neg, unit_norm
from keras.optimizers import SGD, RMSprop, Adagrad, Adadelta, Adam, Adamax, Nadam
from keras.callbacks import Callback, ModelCheckpoint, EarlyStopping, History, CSVLogger, TensorBoard
from keras.callbacks.callbacks import EarlyStopping
from keras.callbacks.tensorboard_v1 import TensorBoard
from keras.losses.losses import mean_squared_error
from keras.optimizers.optimizer_v2 import Adam
from keras.models import Sequential, Model, Input, load_model, model_from_json, save_model, Graph, model_from_yaml
from keras.models import model_from_config
from keras.applications.vgg16 import VGG16, preprocess_input, decode_predictions
from keras.applications.resnet50 import ResNet50
from keras.applications.resnet_v1 import ResNet50
from keras.applications.mobilenetv2 import MobileNetV2
from keras.optimizers import rmsprop, adam, sgd
from keras_applications import vgg16
from keras.applications import InceptionV3
from keras.datasets import mnist, cifar10
from keras.wrappers.scikit_learn import KerasClassifier
import keras.legacy.interfaces
from keras.initializers import RandomNormal, normal
from keras.metrics import categorical_accuracy, mse, precision
from keras.losses import mse, kld
from tensorflow.keras.layers import Dense, Conv2D
from tensorflow.keras.models import Sequential
from tensorflow.keras.utils import Sequence, to_categorical
from tensorflow.keras.preprocessing.image import ImageDataGenerator
from tensorflow.keras.preprocessing.text import Tokenizer
from tensorflow.keras import backend as K, layers
from tensorflow import keras
import tensorflow.keras
import tensorflow.keras as tfk
import tensorflow.keras.backend as K
import tensorflow.keras.layers as L
from tensorflow.python.keras.layers import Dense
from tensorflow.python.keras import backend as K
from tensorflow.python.keras.utils import Sequence
from tensorflow.python.keras.utils.data_utils import Sequence
from tensorflow.python.keras.layers.core import Dense
from tensorflow.contrib.keras import layers
"""

told = {}
for statement in STATEMENTS.strip().splitlines():
    names = {}
    try:
        exec(compile(statement, sys.argv[0], "exec"), names)
        told[statement] = "imported"
    except BaseException as error:  # noqa: BLE001  it is what the program tells
        told[statement] = f"{type(error).__name__}: {error}"

import keras  # noqa: E402
import keras.utils.np_utils  # noqa: E402
import tensorflow.keras.layers  # noqa: E402
import tensorflow.python.keras.layers as old  # noqa: E402
from keras.layers.core import Dense  # noqa: E402

same = {
    "an old path": Dense is keras.layers.Dense,
    "tensorflow.keras": tensorflow.keras.layers.Dense is keras.layers.Dense,
    "tensorflow.python.keras": old.Dense is keras.layers.Dense,
    "a module by its whole name": keras.utils.np_utils.to_categorical is keras.utils.to_categorical,
    "modules as attributes": keras.engine.topology.Layer is keras.layers.Layer
    and keras.preprocessing.text.Tokenizer.__name__ == "Tokenizer"
    and keras.objectives.mse is keras.losses.mean_squared_error,
    "tf.keras as an attribute": tensorflow.keras is keras,
    "old optimizers of tf.keras": keras.optimizers.legacy.Adam is keras.optimizers.Adam,
    "an old name": keras.layers.Convolution2D is keras.layers.Conv2D,
}
with open(sys.argv[1], "w") as file:
    json.dump({"imports": told, "same": same}, file)
