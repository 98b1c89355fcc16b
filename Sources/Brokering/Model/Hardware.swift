/// The parts of a desktop's machine, beside its memory, processors and image.
public struct Hardware: Hashable, Sendable {
  public enum Firmware: String, Hashable, Codable, Sendable, CaseIterable {
    case bios
    /// UEFI; each desktop has variables of its own, which are kept as its disk is.
    case uefi
  }

  public enum Video: Hashable, Sendable {
    /// A standard VGA.
    case std
    /// A virtio card that is a VGA until the guest has a driver; with its monitors.
    case virtio(outputs: Int)
  }

  public enum Network: Hashable, Sendable {
    /// No card.
    case none
    /// A card on the host's network, through passt.
    case user(Host)
    /// A card on a TAP interface of the host's: the prefix and the desktop's number.
    case tap(prefix: String)

    /// The most pairs of queues of a card, which are `carrel-vmm`'s.
    public static let mostQueues = 8

    /// Whether a guest reaches the services of the host itself.
    public enum Host: String, Hashable, Sendable {
      case off, on
    }
  }

  public enum Audio: String, Hashable, Codable, Sendable, CaseIterable {
    case ac97, virtio, none
  }

  public enum DiskBus: String, Hashable, Codable, Sendable, CaseIterable {
    case ide, virtio
  }

  public var firmware: Firmware
  public var video: Video
  public var network: Network
  /// Pairs of queues of the network card; one where there is none.
  public var networkQueues: Int
  public var audio: Audio
  /// Whether there is a USB controller with a tablet and a keyboard.
  public var usb: Bool
  public var diskBus: DiskBus

  public init(
    firmware: Firmware = .bios, video: Video = .std, network: Network = .none,
    networkQueues: Int = 1, audio: Audio = .ac97, usb: Bool = false, diskBus: DiskBus = .ide
  ) {
    self.firmware = firmware
    self.video = video
    self.network = network
    self.networkQueues = networkQueues
    self.audio = audio
    self.usb = usb
    self.diskBus = diskBus
  }
}

// MARK: - As text

extension Hardware.Video: LosslessStringConvertible {
  public static let mostOutputs = 4

  /// `std`, `virtio`, `virtio,outputs=2`.
  public init?(_ text: String) {
    let outputs = "virtio,outputs="
    switch text {
    case "std": self = .std
    case "virtio": self = .virtio(outputs: 1)
    default:
      guard text.hasPrefix(outputs), let count = Int(text.dropFirst(outputs.count)),
        (1...Self.mostOutputs).contains(count)
      else { return nil }
      self = .virtio(outputs: count)
    }
  }

  public var description: String {
    switch self {
    case .std: "std"
    case .virtio(1): "virtio"
    case .virtio(let outputs): "virtio,outputs=\(outputs)"
    }
  }
}

extension Hardware.Network: LosslessStringConvertible {
  /// Of a TAP interface's name; Linux has room for 15 bytes, and the number follows.
  public static let longestPrefix = 9

  /// `none`, `user`, `user,host=on`, `tap:office`.
  public init?(_ text: String) {
    switch text {
    case "none": self = .none
    case "user", "user,host=off": self = .user(.off)
    case "user,host=on": self = .user(.on)
    default:
      guard text.hasPrefix("tap:") else { return nil }
      let prefix = String(text.dropFirst(4))
      guard Self.isPrefix(prefix) else { return nil }
      self = .tap(prefix: prefix)
    }
  }

  /// Letters, digits, `-`, `_` and `.`; the first a letter, the last no digit: where the
  /// number begins must be plain.
  private static func isPrefix(_ text: String) -> Bool {
    guard let first = text.first, let last = text.last, text.utf8.count <= longestPrefix,
      text.allSatisfy(\.isASCII)
    else { return false }
    return first.isLetter && !last.isNumber
      && text.allSatisfy { $0.isLetter || $0.isNumber || "-_.".contains($0) }
  }

  public var description: String {
    switch self {
    case .none: "none"
    case .user(.off): "user"
    case .user(.on): "user,host=on"
    case .tap(let prefix): "tap:\(prefix)"
    }
  }
}

// MARK: - In the store

/// Records of earlier versions lack what they did not know: that is as it was then.
extension Hardware: Codable {
  private enum CodingKeys: String, CodingKey {
    case firmware, video, network, networkQueues, audio, usb, diskBus
  }

  public init(from decoder: any Decoder) throws {
    let record = try decoder.container(keyedBy: CodingKeys.self)
    self.init()
    firmware = try record.decodeIfPresent(Firmware.self, forKey: .firmware) ?? firmware
    video = try record.decodeTextIfPresent(Video.self, forKey: .video) ?? video
    network = try record.decodeTextIfPresent(Network.self, forKey: .network) ?? network
    networkQueues = try record.decodeIfPresent(Int.self, forKey: .networkQueues) ?? networkQueues
    audio = try record.decodeIfPresent(Audio.self, forKey: .audio) ?? audio
    usb = try record.decodeIfPresent(Bool.self, forKey: .usb) ?? usb
    diskBus = try record.decodeIfPresent(DiskBus.self, forKey: .diskBus) ?? diskBus
  }

  public func encode(to encoder: any Encoder) throws {
    var record = encoder.container(keyedBy: CodingKeys.self)
    try record.encode(firmware, forKey: .firmware)
    try record.encode(video.description, forKey: .video)
    try record.encode(network.description, forKey: .network)
    try record.encode(networkQueues, forKey: .networkQueues)
    try record.encode(audio, forKey: .audio)
    try record.encode(usb, forKey: .usb)
    try record.encode(diskBus, forKey: .diskBus)
  }
}

extension KeyedDecodingContainer {
  fileprivate func decodeTextIfPresent<Value: LosslessStringConvertible>(
    _ type: Value.Type, forKey key: Key
  ) throws -> Value? {
    guard let text = try decodeIfPresent(String.self, forKey: key) else { return nil }
    if let value = Value(text) { return value }
    throw DecodingError.dataCorruptedError(
      forKey: key, in: self, debugDescription: "'\(text)' is none that this version knows")
  }
}
