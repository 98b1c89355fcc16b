import DeviceModel
import DisplayLink

/// A machine's sound for the displays that listen.
final class LinkSound: AudioOutput {
  private let link: DisplayLinkServer

  init(_ link: DisplayLinkServer) { self.link = link }

  var isListening: Bool { link.wantsSound }

  func write(_ frames: [AudioFrame]) { link.publish(sound: frames, rate: AudioMixer.rate) }

  func rest() { link.publish(sound: [], rate: AudioMixer.rate) }
}
