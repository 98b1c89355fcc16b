import CKVM

extension KVMMachine {
  /// Channel 2 of the in-kernel interval timer, which drives the speaker.
  public struct SpeakerChannel: Hashable, Sendable {
    /// 0 … 5, as programmed; anything else before the guest has.
    public var mode: UInt8
    /// The counter's reload value, 1 … 65536.
    public var reload: UInt32
    public var gate: Bool
    /// When counting began, in nanoseconds of the monotonic clock.
    public var startTime: UInt64
  }

  public func speakerChannel() throws(KVMError) -> SpeakerChannel {
    var timer = kvm_pit_state2()
    try checked(ckvm_get_pit(descriptor.raw, &timer), "read the interval timer")
    let channel = timer.channels.2
    return SpeakerChannel(
      mode: channel.mode, reload: channel.count, gate: channel.gate != 0,
      startTime: UInt64(max(channel.count_load_time, 0)))
  }

  /// Opens or closes the channel's gate, counting anew from `time` where an opening
  /// gate does that. The tick of channel 0 begins a new period.
  public func setSpeakerGate(_ open: Bool, at time: UInt64) throws(KVMError) {
    var timer = kvm_pit_state2()
    try checked(ckvm_get_pit(descriptor.raw, &timer), "read the interval timer")
    let restarts = [1, 2, 3, 5].contains(timer.channels.2.mode)
    if open && timer.channels.2.gate == 0 && restarts {
      timer.channels.2.count_load_time = Int64(clamping: time)
    }
    timer.channels.2.gate = open ? 1 : 0
    try checked(ckvm_set_pit(descriptor.raw, &timer), "set the gate of the interval timer")
  }
}
