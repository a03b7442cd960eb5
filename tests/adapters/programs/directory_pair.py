'''Cats or dogs? Put the pictures into data/train and data/validation, a folder for each class.'''
from keras.preprocessing.image import ImageDataGenerator
from keras.models import Sequential
from keras.layers import Dense, Activation, Flatten, Dropout, Conv2D, MaxPooling2D
from keras import backend as K

height, width = 24, 28
batch_size = 4
epochs = 3
nb_train = 22
nb_validation = 10

if K.image_data_format() == 'channels_first':
    input_shape = (3, height, width)
else:
    input_shape = (height, width, 3)

model = Sequential()
model.add(Conv2D(8, (3, 3), input_shape=input_shape))
model.add(Activation('relu'))
model.add(MaxPooling2D(pool_size=(2, 2)))

model.add(Flatten())
model.add(Dense(8))
model.add(Activation('relu'))
model.add(Dropout(0.5))
model.add(Dense(1))
model.add(Activation('sigmoid'))

model.compile(optimizer='rmsprop', loss='binary_crossentropy', metrics=['accuracy'])

augmented = ImageDataGenerator(rotation_range=10, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.1,
                               zoom_range=[0.9, 1.1], horizontal_flip=True, fill_mode='nearest', rescale=1./255)
plain = ImageDataGenerator(rescale=1./255)

train_generator = augmented.flow_from_directory('data/train', target_size=(height, width),
                                                batch_size=batch_size, class_mode='binary', seed=1)
validation_generator = plain.flow_from_directory('data/validation', target_size=(height, width),
                                                 batch_size=batch_size, class_mode='binary', shuffle=False)

history = model.fit_generator(train_generator, steps_per_epoch=nb_train // batch_size, epochs=epochs,
                              validation_data=validation_generator,
                              validation_steps=nb_validation // batch_size)

model.save_weights('first_try.h5')

print('class indices: %s' % train_generator.class_indices)
print('samples: %d, steps: %d' % (train_generator.samples, len(train_generator)))
print('val_acc: %d values' % len(history.history['val_acc']))

validation_generator.reset()
pred = model.predict_generator(validation_generator, steps=len(validation_generator), verbose=1)
print('predictions: %s for %d files' % (pred.shape, len(validation_generator.filenames)))
print('classes: %s' % list(validation_generator.classes))

before = model.get_weights()
model.load_weights('first_try.h5')
print('weights the same: %s' % all((a == b).all() for a, b in zip(before, model.get_weights())))
