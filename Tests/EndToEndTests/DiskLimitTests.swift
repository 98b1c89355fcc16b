import Foundation
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  @Suite("A pool that limits its desktops' disks")
  struct DiskLimitTests {
    @Test("does so from their start, for those that run when it changes, and after a crash")
    func limits() async throws {
      try await Site.open { site in
        let image = try site.directory.write([UInt8](repeating: 0, count: 1 << 20), to: "disk.raw")
        try await site.repeatable(["user", "add", "alice", "--no-password"])
        try await site.repeatable([
          "pool", "create", "study", "--kind", "dedicated", "--image", image, "--memory", "64M",
          "--size", "2", "--spares", "1", "--disk-bus", "virtio", "--disk-iops", "300",
          "--disk-iops-burst", "900",
        ])
        try await site.repeatable(["entitle", "alice", "study"])
        _ = try await site.logIn("alice")
        try await site.settle("study")
        let machines = site.machineNumbers
        #expect(machines.count == 2, "alice's and a spare")
        for desktop in machines.keys {
          #expect(try site.limits(of: desktop) == ["iops": 300, "iops_max": 900])
        }

        try await site.repeatable(["pool", "set", "study", "--disk-bandwidth", "5M/s"])
        for desktop in machines.keys {
          try await eventually("\(desktop) has its new limit") {
            try site.limits(of: desktop)
              == ["bps": 5 << 20, "iops": 300, "iops_max": 900]
          }
        }

        try await site.kill()
        for desktop in machines.keys {
          let zero = ["bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"].map { "\"\($0)\":0" }
          _ = try site.ask(
            desktop, "block_set_io_throttle",
            "{\"id\":\"virtio0\",\"bps\":9,\(zero.joined(separator: ","))}")
          #expect(try site.limits(of: desktop) == ["bps": 9])
        }
        try await site.start()
        for desktop in machines.keys {
          try await eventually("\(desktop) has its pool's limits") {
            try site.limits(of: desktop)
              == ["bps": 5 << 20, "iops": 300, "iops_max": 900]
          }
        }
        #expect(site.machineNumbers == machines, "nobody was started anew")
      }
    }
  }
}

extension Site {
  /// What a VMM answers to a command.
  fileprivate func ask(
    _ desktop: String, _ command: String, _ arguments: String = "{}"
  ) throws -> Any {
    let path = runtime + "/desktops/\(desktop)/control"
    let socket = try UnixSocket.connect(to: path, kind: .stream)
    try socket.send(
      Array(
        """
        {"execute":"qmp_capabilities"}
        {"execute":"\(command)","arguments":\(arguments),"id":7}

        """.utf8))
    var text = [UInt8]()
    while true {
      let message = try socket.receive()
      if message.isEnd { throw SiteError("\(path) was closed") }
      text += message.bytes
      for line in text.split(separator: 10) {
        guard let answer = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any],
          answer["id"] as? Int == 7
        else { continue }
        guard let result = answer["return"] else { throw SiteError("\(command): \(answer)") }
        return result
      }
    }
  }

  /// The limits of its disk that are not 0.
  fileprivate func limits(of desktop: String) throws -> [String: Int] {
    let drives = try ask(desktop, "query-block") as? [[String: Any]] ?? []
    let disk = drives.first { $0["removable"] as? Bool == false }
    let medium = disk?["inserted"] as? [String: Any] ?? [:]
    var limits: [String: Int] = [:]
    for name in ["bps", "bps_max", "bps_rd", "bps_wr", "iops", "iops_max", "iops_rd", "iops_wr"] {
      if let value = medium[name] as? Int, value != 0 { limits[name] = value }
    }
    return limits
  }
}
