"""The WGAN-GP of the seeds in Keras 3 on TensorFlow: layers, tapes, Keras' optimizers, each update one tf.function."""

import keras
import tensorflow as tf

from .worker import Worker, serve


def padding(layer):
    return "same" if layer["padding"] else "valid"


class LayerNorm(keras.layers.Layer):
    """Over each sample, with a variance by hand. Keras' own takes ``tf.nn.moments`` (TensorFlow 2.21), which stops the
    gradient at the mean: no loss for a gradient, but the second derivative of the variance becomes 2/n·I instead of
    2/n·(I − 1/n), and the gradient of a penalty up to 2e-3 of its norm wrong. The gate refused it.
    """

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[1:], initializer="ones")
        self.beta = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x):
        centred = x - tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=[1, 2, 3], keepdims=True)
        return centred * tf.math.rsqrt(variance + self.eps) * self.gamma + self.beta


def build(layers, weights):
    """A described network as a Keras model with these weights."""
    model = keras.Sequential()
    model.add(keras.Input(channels_last(layers[0]["input"])))
    for layer in layers:
        match layer["kind"]:
            case "Linear":
                added = keras.layers.Dense(layer["width"])
            case "Conv2d":
                added = keras.layers.Conv2D(layer["channels"], layer["kernel"], layer["stride"], padding(layer))
            case "ConvTranspose2d":
                added = keras.layers.Conv2DTranspose(
                    layer["channels"], layer["kernel"], layer["stride"], padding(layer)
                )
            case "BatchNorm2d":
                added = keras.layers.BatchNormalization(momentum=1 - layer["momentum"], epsilon=layer["eps"])
            case "LayerNorm":
                added = LayerNorm(layer["eps"])
            case "LeakyReLU":
                added = keras.layers.LeakyReLU(layer["slope"])
            case "ReLU":
                added = keras.layers.ReLU()
            case "Tanh":
                added = keras.layers.Activation("tanh")
            case "SiLU":
                added = keras.layers.Activation("silu")
            case "Flatten":
                added = keras.layers.Flatten()
            case "Unflatten":
                added = keras.layers.Reshape(channels_last(layer["shape"]))
        model.add(added)
    assign(model, weights)
    return model


def channels_last(shape):
    channels, *pixels = shape
    return (*pixels, channels)


def assign(model, weights):
    for variable, weight in zip(model.trainable_variables, weights, strict=True):
        variable.assign(weight)


def optimizer_of(task):
    name, options = task["optimizer"]
    if name == "adam":
        beta_1, beta_2 = options["betas"]
        return keras.optimizers.Adam(options["lr"], beta_1, beta_2, options["eps"])
    return keras.optimizers.RMSprop(options["lr"], rho=options["alpha"], epsilon=options["eps"])


def penalty(critic, real, fake, eps):
    points = eps * real + (1 - eps) * fake
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = critic(points, training=True)
    gradients = tape.gradient(scores, points)
    norms = tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=list(range(1, len(gradients.shape)))))
    return tf.reduce_mean(tf.square(norms - 1.0))


def critic_gradients(task, critic, real, fake, eps):
    with tf.GradientTape() as tape:
        distance = tf.reduce_mean(critic(real, training=True)) - tf.reduce_mean(critic(fake, training=True))
        loss = task["weight"] * penalty(critic, real, fake, eps) - distance
    return tape.gradient(loss, critic.trainable_variables)


def graph_of(function):
    """Traced as it is: there is no control flow to convert."""
    return tf.function(function, autograph=False)


class Task:
    """A tf.function of no arguments over models and inputs that are variables: built once, assigned anew."""

    def __init__(self, task, weights, inputs):
        self.task = task
        self.models = {name: build(layers, weights[name]) for name, layers in task["networks"].items()}
        self.optimizers = {}
        if "optimizer" in task:
            for name, model in self.models.items():
                self.optimizers[name] = optimizer_of(task)
                self.optimizers[name].build(model.trainable_variables)
        self.inputs = {name: tf.Variable(array, trainable=False) for name, array in inputs.items()}
        self.initial = [tf.identity(variable) for variable in self.variables()]
        self.run = graph_of(self.once)

    def variables(self):
        """What training changes beside the weights."""
        own = [variable for model in self.models.values() for variable in model.non_trainable_variables]
        return own + [variable for optimizer in self.optimizers.values() for variable in optimizer.variables]

    def assign(self, weights, inputs):
        for name, model in self.models.items():
            assign(model, weights[name])
        for name, array in inputs.items():
            self.inputs[name].assign(array)
        for variable, value in zip(self.variables(), self.initial, strict=True):
            variable.assign(value)

    def step(self):
        self.found = self.run()
        return self.found

    def wait(self):
        for array in tf.nest.flatten(self.found):
            array.numpy()


class Penalty(Task):
    """Value and gradients in the critic's parameters."""

    def once(self):
        critic, inputs = self.models["critic"], self.inputs
        with tf.GradientTape() as tape:
            value = penalty(critic, inputs["real"], inputs["fake"], inputs["eps"])
        gradients = tape.gradient(value, critic.trainable_variables)
        # The last bias has none. Asked for zeros, TensorFlow 2.21 fails over a variable of Keras.
        zeros = [tf.zeros(variable.shape) for variable in critic.trainable_variables]
        filled = [zero if found is None else found for found, zero in zip(gradients, zeros, strict=True)]
        return {"values": [value], "critic": filled}


class CriticStep(Task):
    """One update of the critic."""

    def once(self):
        critic, inputs = self.models["critic"], self.inputs
        gradients = critic_gradients(self.task, critic, inputs["real"], inputs["fake"], inputs["eps"])
        self.optimizers["critic"].apply(gradients, critic.trainable_variables)
        return {"critic": gradients}


class Iteration(Task):
    """Updates of the critic, one for each of real's first axis, each on new samples; then one of the generator."""

    def __init__(self, task, weights, inputs):
        super().__init__(task, weights, inputs)
        self.critic_update = graph_of(self.update_critic)
        self.generator_update = graph_of(self.update_generator)

    def update_critic(self, index):
        critic, inputs = self.models["critic"], self.inputs
        fake = self.models["generator"](inputs["latent"][index], training=True)
        gradients = critic_gradients(self.task, critic, inputs["real"][index], fake, inputs["eps"][index])
        self.optimizers["critic"].apply(gradients, critic.trainable_variables)
        return gradients

    def update_generator(self):
        generator = self.models["generator"]
        with tf.GradientTape() as tape:
            fake = generator(self.inputs["latent"][-1], training=True)
            loss = -tf.reduce_mean(self.models["critic"](fake, training=True))
        gradients = tape.gradient(loss, generator.trainable_variables)
        self.optimizers["generator"].apply(gradients, generator.trainable_variables)
        return gradients

    def once(self):
        for index in range(self.inputs["real"].shape[0]):
            critic = self.critic_update(tf.constant(index))
        return self.outcome(critic) | {"generator": self.generator_update()}

    def outcome(self, critic):
        return {"critic": critic}

    def step(self):
        self.found = self.once()
        return self.found


class ClippedIteration(Iteration):
    """The original WGAN's: updates of the critic without a penalty, each with its clip."""

    def update_critic(self, index):
        real = self.inputs["real"][index]
        latent = self.inputs["latent"][index][: real.shape[0]]
        batches = real, self.models["generator"](latent, training=True)
        return [self.update_on(batches, factors) for factors in self.task["losses"]]

    def update_on(self, batches, factors):
        critic = self.models["critic"]
        with tf.GradientTape() as tape:
            terms = zip(factors, batches, strict=True)
            loss = sum(factor * tf.reduce_mean(critic(x, training=True)) for factor, x in terms if factor)
        gradients = tape.gradient(loss, critic.trainable_variables)
        self.optimizers["critic"].apply(gradients, critic.trainable_variables)
        for bound, variable in zip(self.task["bounds"], critic.trainable_variables, strict=True):
            if bound is not None:
                variable.assign(tf.clip_by_value(variable, -bound, bound))
        return gradients

    def outcome(self, critic):
        gradients = {f"critic {index}": found for index, found in enumerate(critic)}
        return gradients | {"critic weights": self.models["critic"].trainable_variables}


TASKS = {
    "gradient_penalty": Penalty,
    "critic_step": CriticStep,
    "iteration": Iteration,
    "clipped_iteration": ClippedIteration,
}


class Framework:
    def __init__(self, threads):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.versions = {"keras": keras.__version__, "tensorflow": tf.__version__}

    def build(self, task, weights, inputs):
        return TASKS[task["name"]](task, weights, inputs)


if __name__ == "__main__":
    serve(Worker(Framework))
