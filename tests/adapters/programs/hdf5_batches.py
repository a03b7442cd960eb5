import h5py
import numpy as np

from keras.models import Sequential, load_model
from keras.layers.core import Dense, Dropout
from keras.regularizers import l2

filename = 'features.h5'
batch_size = 16


def count(filename, split):
    with h5py.File(filename, 'r') as f:
        return f['X_' + split].shape[0]


def generator_from_hdf5(filename, split, batch_size):
    f = h5py.File(filename, 'r')
    X, y = f['X_' + split], f['y_' + split]
    n = X.shape[0]
    while True:
        for start in range(0, n, batch_size):
            end = min(start + batch_size, n)
            yield X[start:end], y[start:end]


def features_only(filename, split, batch_size):
    for X, y in generator_from_hdf5(filename, split, batch_size):
        yield X


n_train, n_test = count(filename, 'train'), count(filename, 'test')
steps = int(np.ceil(n_train / float(batch_size)))
test_steps = int(np.ceil(n_test / float(batch_size)))
print('train: %d in %d steps, test: %d in %d steps' % (n_train, steps, n_test, test_steps))

model = Sequential()
model.add(Dense(8, input_shape=(6,), activation='relu', kernel_regularizer=l2(1e-4)))
model.add(Dropout(0.1))
model.add(Dense(1, activation='sigmoid'))
model.compile('adam', 'binary_crossentropy', metrics=['accuracy'])

history = model.fit_generator(generator_from_hdf5(filename, 'train', batch_size),
                              steps, 4,
                              validation_data=generator_from_hdf5(filename, 'test', batch_size),
                              validation_steps=test_steps,
                              class_weight={0: 1., 1: 3.},
                              max_queue_size=2)

print('history: %s' % sorted(k for k in history.history if 'acc' in k and 'accuracy' not in k))
loss, acc = model.evaluate_generator(generator_from_hdf5(filename, 'test', batch_size), test_steps)
with h5py.File(filename, 'r') as f:
    X_test, y_test = f['X_test'][:], f['y_test'][:]
print('evaluated all once: %s' % np.allclose([loss, acc], model.evaluate(X_test, y_test, verbose=0), atol=1e-5))
pred = model.predict_generator(features_only(filename, 'test', batch_size), test_steps)
print('predicted in order: %s' % np.allclose(pred, model.predict(X_test, verbose=0), atol=1e-5))

model.save('my_model.h5')
del model
model = load_model('my_model.h5')
print('loaded: %s' % np.allclose(pred, model.predict(X_test, verbose=0), atol=1e-5))
