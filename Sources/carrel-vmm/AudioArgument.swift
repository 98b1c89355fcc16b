import ArgumentParser
import Machine

/// `ac97|virtio|none[,wav=FILE]`.
struct AudioArgument {
  let audio: MachineConfiguration.Audio

  init(parsing argument: String) throws {
    let parts = argument.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
    guard let card = MachineConfiguration.Audio.Card(rawValue: parts.first.map(String.init) ?? "")
    else {
      throw ValidationError(
        "there is no sound card '\(parts.first ?? "")'; give ac97, virtio or none.")
    }
    var audio = MachineConfiguration.Audio(card)
    if parts.count == 2 {
      // A path may have commas.
      guard parts[1].hasPrefix("wav="), parts[1].count > 4 else {
        throw ValidationError("there is no sound option '\(parts[1])'; there is wav=FILE.")
      }
      audio.wave = String(parts[1].dropFirst(4))
    }
    self.audio = audio
  }
}
