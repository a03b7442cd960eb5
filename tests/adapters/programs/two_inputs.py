import numpy as np
from keras.layers import Input, Dense, concatenate
from keras.layers.merge import Add
from keras.models import Model


def process_line(line):
    values = [float(v) for v in line.strip().split(',')]
    x1 = np.array([values[0:3]])
    x2 = np.array([values[3:5]])
    y = np.array([values[5:6]])
    return x1, x2, y


lines_read = []


def generate_arrays_from_file(path):
    while 1:
        f = open(path)
        for line in f:
            x1, x2, y = process_line(line) # one sample a line
            lines_read.append(int(line.split(',')[0]))
            yield ({'input_1': x1, 'input_2': x2}, {'output': y})
        f.close()


input_1 = Input(shape=(3,), name='input_1')
input_2 = Input(shape=(2,), name='input_2')
a = Dense(4, activation='relu')(input_1)
b = Dense(4, activation='relu')(input_2)
x = concatenate([a, b])
x = Add()([Dense(4)(x), a])
output = Dense(1, name='output')(x)
model = Model(inputs=[input_1, input_2], outputs=[output])
model.compile(optimizer='rmsprop', loss={'output': 'mean_squared_error'}, loss_weights={'output': 1.})

# 12 lines in the file, so an epoch is less than the file
model.fit_generator(generate_arrays_from_file('pairs.txt'),
                    steps_per_epoch=10, epochs=3)

print('lines read: %d' % len(lines_read))
print('goes on where it was: %s' % (lines_read[:30] == [i % 12 for i in range(30)]))
loss = model.evaluate_generator(generate_arrays_from_file('pairs.txt'), steps=12)
print('loss is one number: %s' % np.isscalar(loss))
