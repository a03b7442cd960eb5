import glob
import math
import os
import random

import numpy as np
import keras
from keras import backend as K
from keras.models import Model
from keras.layers import Input, Dense, Conv2D, MaxPooling2D, GlobalAveragePooling2D
from keras.preprocessing.image import load_img, img_to_array
from keras.utils import to_categorical

IMG_SIZE = (24, 24)


class ImageSequence(keras.utils.Sequence):
    '''Loads pictures when they are needed'''

    def __init__(self, paths, batch_size=5, shuffle=True):
        self.paths = list(paths)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.epochs_done = 0
        self.orders = [list(self.paths)]

    def __len__(self):
        return int(math.ceil(len(self.paths) / float(self.batch_size)))

    def __getitem__(self, idx):
        batch = self.paths[idx * self.batch_size:(idx + 1) * self.batch_size]
        X = np.array([img_to_array(load_img(p, target_size=IMG_SIZE)) for p in batch]) / 255.
        y = to_categorical([0 if os.sep + 'cats' + os.sep in p else 1 for p in batch], num_classes=2)
        return X, y

    def on_epoch_end(self):
        self.epochs_done += 1
        if self.shuffle == True:
            random.shuffle(self.paths)
        self.orders.append(list(self.paths))


if K.image_data_format() == 'channels_first':
    input_shape = (3,) + IMG_SIZE
else:
    input_shape = IMG_SIZE + (3,)

inputs = Input(shape=input_shape)
x = Conv2D(4, (3, 3), activation='relu', padding='same')(inputs)
x = MaxPooling2D((2, 2))(x)
x = GlobalAveragePooling2D()(x)
outputs = Dense(2, activation='softmax')(x)
model = Model(inputs=inputs, outputs=outputs)
model.compile(optimizer=keras.optimizers.Adam(lr=0.05), loss='categorical_crossentropy', metrics=['acc'])

train_paths = sorted(glob.glob(os.path.join('data', 'train', '*', '*.jpg')))
val_paths = sorted(glob.glob(os.path.join('data', 'validation', '*', '*.jpg')))
training_generator = ImageSequence(train_paths)
validation_generator = ImageSequence(val_paths, shuffle=False)

history = model.fit_generator(generator=training_generator,
                              validation_data=validation_generator,
                              epochs=3,
                              use_multiprocessing=True,
                              workers=2,
                              max_queue_size=4)

print('batches per epoch: %d of %d images' % (len(training_generator), len(train_paths)))
print('on_epoch_end calls: %d' % training_generator.epochs_done)
print('orders differ: %s' % (training_generator.orders[0] != training_generator.orders[1]))
print('acc:', len(history.history['acc']), 'val_acc:', len(history.history['val_acc']))
predictions = model.predict_generator(validation_generator, workers=2)
print('predictions:', predictions.shape)
