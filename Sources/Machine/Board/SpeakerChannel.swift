import Devices
import KVM
import LinuxSystem

/// Channel 2 of the in-kernel interval timer as port 0x61 sees it.
final class SpeakerChannel: SpeakerTimer {
  private static let frequency: UInt64 = 1_193_182

  private let kvm: KVMMachine

  init(_ kvm: KVMMachine) { self.kvm = kvm }

  // Reading and setting fail only for a machine without a timer; this one has it.

  var gate: Bool {
    get { (try? kvm.speakerChannel())?.gate ?? false }
    set { try? kvm.setSpeakerGate(newValue, at: MonotonicClock.now) }
  }

  var reload: UInt16 {
    UInt16(truncatingIfNeeded: (try? kvm.speakerChannel())?.reload ?? 0)
  }

  var output: Bool {
    guard let channel = try? kvm.speakerChannel() else { return false }
    return Self.output(of: channel, at: MonotonicClock.now)
  }

  /// OUT2 by the 8254's modes.
  static func output(of channel: KVMMachine.SpeakerChannel, at time: UInt64) -> Bool {
    let elapsed = time > channel.startTime ? time - channel.startTime : 0
    let ticks =
      elapsed / 1_000_000_000 &* frequency &+ elapsed % 1_000_000_000 * frequency
      / 1_000_000_000
    let reload = UInt64(max(channel.reload, 1))
    switch channel.mode {
    case 2: return !channel.gate || ticks % reload != reload - 1
    case 3: return !channel.gate || ticks % reload < (reload + 1) / 2
    case 4, 5: return ticks != reload
    // Terminal count and one-shot: low while counting.
    default: return ticks >= reload
    }
  }
}
