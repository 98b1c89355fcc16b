import ArgumentParser
import CarrelBase
import Machine

/// `ac97|virtio|none[,wav=FILE]`.
struct AudioArgument {
  let audio: MachineConfiguration.Audio

  init(parsing argument: String) throws {
    let parts = OptionText.parts(of: argument)
    guard let card = MachineConfiguration.Audio.Card(rawValue: parts[0]) else {
      throw ValidationError("there is no sound card '\(parts[0])'; give ac97, virtio or none.")
    }
    var audio = MachineConfiguration.Audio(card)
    for option in parts.dropFirst() {
      guard option.hasPrefix("wav="), option.count > 4 else {
        throw ValidationError("there is no sound option '\(option)'; there is wav=FILE.")
      }
      audio.wave = String(option.dropFirst(4))
    }
    self.audio = audio
  }
}
