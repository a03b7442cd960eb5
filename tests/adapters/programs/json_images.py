import json
import random

import numpy as np
from PIL import Image

from keras.models import Model
from keras.layers import Input, merge
from keras.layers.core import Dense, Flatten, Activation
from keras.layers.convolutional import Convolution2D, MaxPooling2D
from keras.optimizers import SGD

img_rows, img_cols = 24, 24
batch_size = 6
nb_epoch = 3

with open('images.json') as f:
    listing = json.load(f)

names = listing['classes']
train = [entry for entry in listing['images'] if entry['split'] == 'train']
drawn = []


def load_image(path):
    img = Image.open(path).convert('RGB')
    img = img.resize((img_cols, img_rows))
    return np.asarray(img, dtype='float32') / 255


def generate_batches(entries):
    # each batch is drawn anew, with replacement
    while True:
        X = np.zeros((batch_size, img_rows, img_cols, 3))
        Y = np.zeros((batch_size, len(names)))
        for i in range(batch_size):
            entry = random.choice(entries)
            drawn.append(entry['file'])
            X[i] = load_image(entry['file'])
            Y[i, names.index(entry['label'])] = 1
        yield X, Y


img_input = Input(shape=(img_rows, img_cols, 3))
x = Convolution2D(4, 3, 3, border_mode='same', init='he_normal', name='conv1')(img_input)
x = Activation('relu')(x)
left = MaxPooling2D((4, 4), strides=(4, 4))(x)
right = Convolution2D(4, 4, 4, subsample=(4, 4), border_mode='valid', activation='relu')(x)
x = merge([left, right], mode='concat', concat_axis=-1)
x = Flatten()(x)
out = Dense(output_dim=len(names), activation='softmax', name='fc')(x)
model = Model(input=img_input, output=out)

sgd = SGD(lr=0.05, decay=1e-6, momentum=0.9, nesterov=True)
model.compile(optimizer=sgd, loss='categorical_crossentropy', metrics=['accuracy'])

hist = model.fit_generator(generate_batches(train), samples_per_epoch=30, nb_epoch=nb_epoch, verbose=2, nb_worker=1)

print('concatenated: %s' % (model.get_layer('fc').get_weights()[0].shape,))
print('drawn: %d' % len(drawn))
print('some twice: %s' % (len(set(drawn)) < len(drawn)))
print('acc in history: %s' % ('acc' in hist.history))
print('losses: %d' % len(hist.history['loss']))

score = model.evaluate_generator(generate_batches(train), val_samples=12)
print('score of two: %d' % len(score))
prob = model.predict_generator(generate_batches(train), val_samples=12)
print('predicted: %s' % (prob.shape,))
