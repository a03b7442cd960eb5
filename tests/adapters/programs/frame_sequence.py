import cv2
import numpy as np
import pandas as pd
from keras.callbacks import ReduceLROnPlateau, CSVLogger
from keras.layers import Dense, Dropout, Flatten, Conv2D, MaxPooling2D
from keras.models import Sequential
from keras.optimizers import RMSprop
from keras.utils import Sequence
from keras.utils.np_utils import to_categorical

BATCH = 6
SIZE = 24

df = pd.read_csv('frame.csv')
classes = sorted(df.label.unique())
print('%d rows, classes %s' % (len(df), ','.join(classes)))


class DataFrameSequence(Sequence):
    def __init__(self, df, batch_size, mode='train'):
        self.df = df
        self.batch_size = batch_size
        self.mode = mode
        self.on_epoch_end()

    def __len__(self):
        return int(np.ceil(len(self.df) / float(self.batch_size)))

    def __getitem__(self, index):
        rows = self.df.iloc[self.indexes[index * self.batch_size:(index + 1) * self.batch_size]]
        X, y = [], []
        for _, row in rows.iterrows():
            try:
                img = cv2.imread(row['file'])
                img = cv2.resize(img, (SIZE, SIZE))
            except Exception as e:
                # some downloads are broken
                continue
            X.append(img.astype('float32') / 255.0)
            y.append(classes.index(row['label']))
        return np.array(X), to_categorical(y, len(classes))

    def on_epoch_end(self):
        self.indexes = np.arange(len(self.df))
        if self.mode == 'train':
            np.random.shuffle(self.indexes)


train_df = df.sample(frac=1., random_state=42)
train_gen = DataFrameSequence(train_df, BATCH)
valid_gen = DataFrameSequence(df[:10], BATCH, mode='valid')

model = Sequential()
model.add(Conv2D(4, kernel_size=(3, 3), activation='relu', input_shape=(SIZE, SIZE, 3)))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
model.add(Dense(len(classes), activation='softmax'))
model.compile(loss='categorical_crossentropy', optimizer=RMSprop(lr=1e-3), metrics=['accuracy'])

reduce_lr = ReduceLROnPlateau(monitor='val_acc', factor=0.5, patience=1, min_lr=1e-6)
logger = CSVLogger('log.csv')
h = model.fit_generator(train_gen, steps_per_epoch=len(train_gen), epochs=2, verbose=2,
                        validation_data=valid_gen, validation_steps=len(valid_gen),
                        workers=4, callbacks=[reduce_lr, logger])

print('acc: %d values, val_acc: %d values' % (len(h.history['acc']), len(h.history['val_acc'])))
print('lr: %s' % ('lr' in h.history))
print('log: %s' % ('val_acc' in open('log.csv').readline()))
pred = model.predict_generator(valid_gen, steps=len(valid_gen))
print('predictions of readable files: %d' % len(np.argmax(pred, axis=1)))
