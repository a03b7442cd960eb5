import numpy as np
import keras
from keras.layers import Input, Dense, Lambda, Reshape
from keras.layers.recurrent import GRU
from keras.models import Model
from keras.optimizers import SGD
from keras import backend as K


class NumberGenerator(keras.callbacks.Callback):
    """Feeds the model, and makes the task harder as it learns."""

    def __init__(self, minibatch_size, val_split):
        self.minibatch_size = minibatch_size
        self.val_split = val_split
        self.place = 0
        self.level = 1
        self.levels_seen = []
        self.begun = False
        rng = np.random.RandomState(3)
        self.X = rng.rand(200, 5, 1)
        self.y = self.X.mean(axis=1)

    def __iter__(self):
        return self

    def __next__(self):
        return self.next()

    def next(self):
        batch = self.get_batch(self.place)
        self.place = (self.place + self.minibatch_size) % self.val_split
        return batch

    def next_val(self):
        while 1:
            for index in range(self.val_split, len(self.X), self.minibatch_size):
                yield self.get_batch(index)

    def get_batch(self, index):
        x = self.X[index:index + self.minibatch_size]
        inputs = {'the_input': x, 'level': np.full((len(x), 1), self.level)}
        outputs = {'mean': self.y[index:index + self.minibatch_size]}
        return (inputs, outputs)

    def on_train_begin(self, logs={}):
        self.begun = True

    def on_epoch_begin(self, epoch, logs={}):
        self.level = epoch + 1
        self.levels_seen.append(self.level)

    def on_epoch_end(self, epoch, logs={}):
        print('epoch %d ended with a loss: %s' % (epoch, logs.get('loss') is not None))
        self.model.save_weights('weights%02d.h5' % epoch)


gen = NumberGenerator(minibatch_size=20, val_split=160)

the_input = Input(name='the_input', shape=(5, 1), dtype='float32')
level = Input(name='level', shape=(1,), dtype='float32')
x = GRU(4, kernel_initializer='he_normal')(the_input)
x = keras.layers.concatenate([x, Lambda(lambda l: K.sum(l, axis=-1, keepdims=True) * 0.1)(level)])
mean = Dense(1, name='mean')(x)
model = Model(inputs=[the_input, level], outputs=mean)
model.compile(loss={'mean': 'mse'}, optimizer=SGD(lr=0.02, decay=1e-6, momentum=0.9, nesterov=True, clipnorm=5))

model.fit_generator(generator=gen, steps_per_epoch=160 // 20, epochs=3, verbose=2,
                    validation_data=gen.next_val(), validation_steps=2,
                    callbacks=[gen], initial_epoch=0)

print('begun: %s' % gen.begun)
print('levels: %s' % gen.levels_seen)
print('back at the start: %s' % (gen.place == 0))
