from __future__ import print_function

import numpy as np
np.random.seed(1337)  # for reproducibility

from keras.models import Sequential, load_model
from keras.layers.core import Dense, Dropout, Activation
from keras.layers.normalization import BatchNormalization
from keras.optimizers import Adam
from keras.callbacks import EarlyStopping, ModelCheckpoint
from keras.utils import np_utils

batch_size = 32
nb_classes = 3

# three clouds of points
centers = np.array([[-2., 0.], [2., 0.], [0., 3.]])
labels = np.random.randint(0, nb_classes, 600)
points = centers[labels] + 0.3 * np.random.randn(600, 2)

X_train, y_train = points[:500], np_utils.to_categorical(labels[:500], nb_classes)
X_val, y_val = points[500:], np_utils.to_categorical(labels[500:], nb_classes)

batches = {'train': 0, 'val': 0}


def batch_generator(X, y, batch_size, name):
    '''Random batches, for ever'''
    while True:
        idx = np.random.randint(0, X.shape[0], batch_size)
        batches[name] += 1
        yield X[idx], y[idx]


model = Sequential()
model.add(Dense(16, input_dim=2, kernel_initializer='glorot_uniform'))
model.add(BatchNormalization())
model.add(Activation('relu'))
model.add(Dropout(0.1))
model.add(Dense(nb_classes, activation='softmax'))
model.summary()

model.compile(loss='categorical_crossentropy', optimizer=Adam(lr=0.05, decay=1e-6), metrics=['accuracy'])

early_stopping = EarlyStopping(monitor='val_acc', min_delta=0.01, patience=2, verbose=1, mode='auto')
checkpoint = ModelCheckpoint('best.hdf5', monitor='val_acc', verbose=0, save_best_only=True, mode='max')

history = model.fit_generator(batch_generator(X_train, y_train, batch_size, 'train'),
                              steps_per_epoch=len(X_train) // batch_size,
                              epochs=30,
                              verbose=2,
                              validation_data=batch_generator(X_val, y_val, batch_size, 'val'),
                              validation_steps=len(X_val) // batch_size,
                              callbacks=[early_stopping, checkpoint])

epochs = len(history.history['acc'])
print('epochs:', epochs, 'stopped at:', early_stopping.stopped_epoch)
print('keys:', sorted(key for key in history.history if key in ('acc', 'loss', 'val_acc', 'val_loss')))
print('train batches per epoch: %d' % (len(X_train) // batch_size))
print('enough batches:', batches['train'] >= 15 * epochs, batches['val'] >= 3 * epochs)
print('good: %s' % (max(history.history['val_acc']) > 0.9))

best = load_model('best.hdf5')
scores = best.evaluate(X_val, y_val, verbose=0)
print('best model is good: %s' % (scores[1] > 0.9))
