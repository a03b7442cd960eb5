import csv
import cv2
import numpy as np
from sklearn.utils import shuffle

from keras.models import Sequential
from keras.layers.core import Dense, Flatten, Lambda, Dropout
from keras.layers.convolutional import Convolution2D, Cropping2D
from keras.layers.advanced_activations import ELU
from keras.optimizers import Adam

BATCH_SIZE = 4
EPOCHS = 3

# where we are in the log
counter = 0
served = []

lines = []
with open('driving_log.csv') as csvfile:
    reader = csv.reader(csvfile)
    next(reader)
    for line in reader:
        # path, steering, throttle
        lines.append([line[0], float(line[1]), float(line[2])])

train_rows = lines[:20]
val_rows = lines[20:]


def load_train_batch(batch_size):
    global counter
    x_out, y_out = [], []
    for i in range(batch_size):
        row = train_rows[(counter + i) % len(train_rows)]
        image = cv2.imread(row[0])
        image = cv2.cvtColor(image, cv2.COLOR_BGR2YUV)
        x_out.append(image)
        y_out.append(row[1:])
        served.append(row[0])
    counter += batch_size
    return np.array(x_out), np.array(y_out)


def train_generator(batch_size=32):
    while 1:
        yield load_train_batch(batch_size)


def valid_generator(rows, batch_size=32):
    while 1:
        for offset in range(0, len(rows), batch_size):
            batch_rows = rows[offset:offset+batch_size]
            images, angles = [], []
            for row in batch_rows:
                images.append(cv2.cvtColor(cv2.imread(row[0]), cv2.COLOR_BGR2YUV))
                angles.append(row[1:])
            yield shuffle(np.array(images), np.array(angles))


model = Sequential()
model.add(Lambda(lambda x: x/127.5 - 1., input_shape=(24, 32, 3)))
model.add(Cropping2D(cropping=((6, 2), (0, 0))))
model.add(Convolution2D(4, 5, 5, subsample=(4, 4), border_mode="same"))
model.add(ELU())
model.add(Flatten())
model.add(Dropout(.2))
model.add(Dense(8))
model.add(ELU())
model.add(Dense(2))
model.compile(optimizer=Adam(lr=1e-3), loss="mse")

history_object = model.fit_generator(train_generator(BATCH_SIZE),
    samples_per_epoch=len(train_rows),
    nb_epoch=EPOCHS,
    validation_data=valid_generator(val_rows, BATCH_SIZE),
    nb_val_samples=len(val_rows),
    verbose=1)

print(sorted(k for k in history_object.history.keys()))
print('rows of the log: %d' % len(train_rows))
print('counter after %d epochs: %d' % (EPOCHS, counter))
print('in order, each once: %s' % (served[:20] == [row[0] for row in train_rows]))
print('epochs of loss: %d and %d' % (len(history_object.history['loss']), len(history_object.history['val_loss'])))

model.save_weights('model.h5', True)
with open('model.json', 'w') as outfile:
    outfile.write(model.to_json())
print('saved')
