import ArgumentParser
import ControlAPI
import ControlClient

struct ImageList: Verb {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Lists the images of the library.")

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws
    -> [LibraryImageDocument]
  {
    try await client.get(APIPath("images"))
  }

  func render(_ answer: [LibraryImageDocument], _ terminal: Terminal) -> String {
    var table = Table("IMAGE", "STATE", "KIND", "SIZE", "ON DISK", "POOLS", "ORIGIN")
    for image in answer {
      table.add(
        .init(image.name), .init(stateText(image), stateColour(image)), .init(image.kind),
        .init(image.state == "ready" ? byteText(image.size) : "-"),
        .init(image.state == "ready" ? byteText(image.allocated) : "-"),
        .init(image.pools.isEmpty ? "-" : image.pools.joined(separator: ",")),
        .init(image.origin))
    }
    return table.render(
      terminal,
      empty: "There are no images. Take one in with 'carrel image import FILE', or make one with "
        + "'carrel image build NAME'")
  }
}

func stateText(_ image: LibraryImageDocument) -> String {
  guard image.state == "making", let percent = image.percent else { return image.state }
  return "making, \(percent) %"
}

func stateColour(_ image: LibraryImageDocument) -> Terminal.Colour? {
  switch image.state {
  case "ready": .green
  case "failed": .red
  default: .yellow
  }
}

/// `512 KiB`, `16.0 GiB`.
func byteText(_ bytes: UInt64) -> String {
  let units = ["KiB", "MiB", "GiB", "TiB"]
  var value = Double(bytes) / 1024
  var unit = 0
  while value >= 1024, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  return unit < 2
    ? "\(Int(value.rounded())) \(units[unit])"
    : "\(Double(Int(value * 10)) / 10) \(units[unit])"
}
