from __future__ import print_function
import numpy as np
from keras.models import Sequential
from keras.layers.core import Dense, Dropout, Activation
from keras.layers.recurrent import LSTM
from keras.layers.embeddings import Embedding
from keras.callbacks import ModelCheckpoint
from keras.preprocessing import sequence
from keras.utils import np_utils

maxlen = 8
nb_words = 20
batch_size = 10

rng = np.random.RandomState(0)
texts = [list(rng.randint(1, nb_words, rng.randint(2, 12))) for _ in range(60)]
answers = [int(text[-1] > nb_words // 2) for text in texts]

seen = {'train': 0, 'val': 0}


def text_generator(texts, answers, which):
    while True:
        for i in range(0, len(texts), batch_size):
            X = sequence.pad_sequences(texts[i:i + batch_size], maxlen=maxlen)
            Y = np_utils.to_categorical(answers[i:i + batch_size], 2)
            seen[which] += len(X)
            yield X, Y


model = Sequential()
model.add(Embedding(nb_words, 8, input_length=maxlen))
model.add(LSTM(output_dim=6, dropout_W=0.1, dropout_U=0.1, inner_activation='hard_sigmoid'))
model.add(Dropout(p=0.1))
model.add(Dense(output_dim=2, init='uniform', W_regularizer='l2'))
model.add(Activation('softmax'))
model.compile(loss='categorical_crossentropy', optimizer='adam', metrics=['accuracy'])

checkpointer = ModelCheckpoint(filepath='weights.hdf5', verbose=0, save_best_only=True)

history = model.fit_generator(text_generator(texts[:45], answers[:45], 'train'), 45, 3, 2, [checkpointer],
                              text_generator(texts[45:], answers[45:], 'val'), 15)

print('epochs: %d' % len(history.epoch))
print('train samples: %d' % seen['train'])
print('val samples: %d' % seen['val'])
print('loss went: %s' % ['%s' % (0 < l < 5) for l in history.history['val_loss']])
