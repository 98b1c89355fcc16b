import LinuxSystem

/// What a machine's devices are connected to on the host, and the threads that serve it.
struct HostLinks {
  let line: SerialLine?
  /// In the order of configuration; `nil` for a card without a cable.
  let cables: [NetworkLink?]
  let channels: [ChannelSocket]
  let sockets: StreamSockets?
  let sound: WaveFile?

  /// Those of a machine that is connected to nothing.
  init() { (line, cables, channels, sockets, sound) = (nil, [], [], nil, nil) }

  init(_ configuration: MachineConfiguration) throws {
    line = try SerialLine.open(configuration.serial)
    cables = try configuration.networks.map { try NetworkLink.open($0) }
    channels = try configuration.channels.map { try ChannelSocket($0) }
    sockets = try configuration.vsock.map { try StreamSockets(path: $0.path) }
    sound = try configuration.audio.wave.map { try WaveFile($0) }
  }

  func start(lock: Lock) throws(SystemError) {
    try line?.start(lock: lock)
    for cable in cables { try cable?.start(lock: lock) }
    for channel in channels { try channel.start(lock: lock) }
    try sockets?.start(lock: lock)
  }

  /// Idempotent. Not under the device lock.
  func close() {
    line?.close()
    for cable in cables { cable?.close() }
    for channel in channels { channel.close() }
    sockets?.close()
    sound?.close()
  }
}
